using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;

namespace Ublkback.Images.Qcow2.Clusters;

/// <summary>
/// Takes notice that an image's tables are broken: says so once, has the image say so, and from then on nothing is
/// written to it, as the specification wants it of the corrupt bit. On the image's worker.
/// </summary>
internal sealed class Corruption(string path, HeaderFile? header, Action<string> warn)
{
    /// <summary>Whether it is broken.</summary>
    public bool IsFound { get; private set; }

    /// <summary>Ends when the image says so, if it is to.</summary>
    public Task Marking { get; private set; } = Task.CompletedTask;

    /// <summary>Something that makes no sense was found; the status is that of the request which met it.</summary>
    public BlockStatus Report(string what)
    {
        if (IsFound) return BlockStatus.IoError;
        IsFound = true;
        warn($"{path} is broken: {what}; it is not written any more: repair it with 'ublkback image check --repair'");
        if (header is not null) Marking = header.SetCorruptAsync().AsTask();
        return BlockStatus.IoError;
    }

    /// <summary>
    /// Data of the guest was found that cannot be read. The tables are sound, so all else is read and written.
    /// </summary>
    public BlockStatus ReportData(string what)
    {
        warn($"{path}: {what}");
        return BlockStatus.IoError;
    }

    /// <summary>
    /// An entry was found that makes no sense, or could not be read, of which the storage has said why.
    /// </summary>
    public BlockStatus Report(in Extent extent, long guestOffset) => extent.Length == 0
        ? extent.Status
        : Report($"the entry of the guest's byte {guestOffset} is {extent.Entry.Value:x16}");
}
