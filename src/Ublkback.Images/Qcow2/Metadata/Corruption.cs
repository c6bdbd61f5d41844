using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// Reports that an image's tables are broken: logs it once and sets the image's corrupt bit. From then on nothing is
/// written to the image, as the specification says of that bit. On the image's worker.
/// </summary>
/// <param name="path">The image's name in messages.</param>
/// <param name="header">The header in the file; null if the bit is set already, or must not be set.</param>
/// <param name="warn">Takes messages.</param>
/// <param name="conflict">What was found when the image was opened; null if nothing was.</param>
internal sealed class Corruption(string path, HeaderFile? header, Action<string> warn, string? conflict = null)
{
    /// <summary>True if the tables are broken.</summary>
    public bool IsFound { get; private set; }

    /// <summary>Ends when the image has its corrupt bit, if it gets one.</summary>
    public Task Marking { get; private set; } = Task.CompletedTask;

    /// <summary>Reports a fault of the tables. Returns the status of the request that met it.</summary>
    public BlockStatus Report(string what)
    {
        if (IsFound) return BlockStatus.IoError;
        IsFound = true;
        Log($"is broken: {what}; it is not written any more: repair it with 'ublkback image check --repair'");
        if (header is not null) Marking = header.SetCorruptAsync().AsTask();
        return BlockStatus.IoError;
    }

    /// <summary>Before the first change: reports what was found when the image was opened.</summary>
    public BlockStatus ReportConflict() => conflict is null ? BlockStatus.Okay : Report(conflict);

    /// <summary>
    /// Reports data of the guest that cannot be read. The tables are sound, so everything else is read and written.
    /// </summary>
    public BlockStatus ReportData(string what)
    {
        Log(what);
        return BlockStatus.IoError;
    }

    /// <summary>Logs a message about the image.</summary>
    public void Log(string what) => warn($"{path} {what}");
}
