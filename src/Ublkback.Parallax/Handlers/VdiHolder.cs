using Ublkback.Block;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Stores;

namespace Ublkback.Parallax.Handlers;

/// <summary>The VDI that this process holds open for writing, for handlers of requests.</summary>
/// <param name="Store">The VDI's store.</param>
/// <param name="Image">The open VDI.</param>
/// <param name="Warn">Takes sentences for the log.</param>
/// <param name="IsInUse">True if somebody uses the disk: it was not opened just to carry a request out.</param>
internal sealed record VdiHolder(IVdiStore Store, VdiImage Image, Action<string> Warn, bool IsInUse)
{
    /// <summary>Runs something on the VDI's worker. The VDI stays open until it ends. Any thread.</summary>
    /// <exception cref="TargetException">Its storage failed.</exception>
    /// <exception cref="OperationCanceledException">
    /// The VDI is being closed. Nothing was carried out, or what was does no harm when it is done again.
    /// </exception>
    public async Task<T> RunAsync<T>(Func<Task<T>> action)
    {
        try
        {
            return await Image.HoldAsync(action).ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is IOException or InvalidDataException)
        {
            throw new TargetException($"the VDI's storage failed: {failure.Message}", failure);
        }
    }

    /// <summary>Returns the snapshot of a name. On the VDI's worker.</summary>
    /// <exception cref="TargetException">The VDI has no such snapshot.</exception>
    public VdiSnapshot FindSnapshot(string name) =>
        Image.Parts.Content.Snapshots.Find(name)
            ?? throw new TargetException(
                $"the VDI has no snapshot {name}", "'ublkback vdi snapshots NAME' shows those there are");

    /// <summary>Throws if a change of the VDI failed.</summary>
    /// <param name="status">The result of the change.</param>
    /// <param name="problem">The beginning of the error, such as <c>cannot create the snapshot</c>.</param>
    /// <exception cref="TargetException">It failed.</exception>
    public static void Check(BlockStatus status, string problem)
    {
        if (status != BlockStatus.Okay)
            throw new TargetException(
                $"{problem} ({status})", "see the reason in the log of the process that holds the VDI");
    }
}
