using Ublkback.Block;
using Ublkback.Parallax.Collect;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Map;
using Ublkback.Parallax.Requests;
using Ublkback.Parallax.Stores;

namespace Ublkback.Parallax.Admin;

/// <summary>What commands can have done to a VDI that is open for writing. On its worker.</summary>
internal sealed class VdiRequestHandler(IVdiStore store, VdiImage image, Action<string> warn)
{
    /// <summary>Does it.</summary>
    /// <exception cref="TargetException">It could not be done.</exception>
    public async Task<VdiReply> RunAsync(VdiRequest request)
    {
        VdiParts parts = image.Parts;
        switch (request.Command)
        {
            case "snapshot":
                Check(
                    await parts.Control.SnapshotAsync(VdiName.Check(request.Snapshot ?? "")),
                    "the snapshot could not be made");
                return new VdiReply(null, SizeBytes: parts.Content.Size);
            case "snapshots":
                return new VdiReply(null, [.. parts.Content.Snapshots.All.Select(snapshot =>
                {
                    byte[] entry = new byte[VdiSnapshot.Length];
                    snapshot.Write(entry);
                    return entry;
                })], SizeBytes: parts.Content.Size);
            case "delete":
                Check(await parts.Control.DeleteAsync(Find(request).Id), "the snapshot could not be deleted");
                return new VdiReply(null);
            case "rollback":
                return new VdiReply(
                    null, SizeBytes: parts.Content.Size,
                    Snapshot: await RollBackAsync(Find(request), request.SizeBytes));
            case "resize":
                await image.ResizeAsync(request.SizeBytes);
                return new VdiReply(null, SizeBytes: parts.Content.Size);
            case "collect":
                return new VdiReply(null, Blocks: await CollectAsync());
            case "compact":
                (BlockStatus status, long written) = await new Compactor(parts, image.Closing).RunAsync();
                Check(status, "the VDI could not be compacted");
                return new VdiReply(null, Blocks: written);
            default:
                throw new TargetException($"this version does not know '{request.Command}'");
        }
    }

    private VdiSnapshot Find(VdiRequest request) =>
        image.Parts.Content.Snapshots.Find(request.Snapshot ?? "")
            ?? throw new TargetException($"there is no snapshot {request.Snapshot}");

    private async Task<string> RollBackAsync(VdiSnapshot target, long leastSize)
    {
        try
        {
            VdiContent then = await Task.Run(
                () => image.Parts.ReadContent(target.Content, vdi => store.OpenOther(vdi, warn)));
            if (then.Size < leastSize)
                throw new TargetException($"the snapshot {target.Name} has {then.Size} bytes and the disk "
                    + $"{leastSize}, which cannot become smaller while it is used: detach it first");
            return await image.RollBackAsync(then);
        }
        catch (Exception failure) when (failure is InvalidDataException or IOException)
        {
            throw new TargetException(
                $"the snapshot {target.Name} cannot be read: {failure.Message}; see 'ublkback vdi fsck'", failure);
        }
    }

    private async Task<long> CollectAsync()
    {
        Collector collector = new(store, warn);
        await collector.RunAsync([image], withUnnamed: false);
        return collector.Freed;
    }

    private static void Check(BlockStatus status, string what)
    {
        if (status != BlockStatus.Okay)
            throw new TargetException($"{what}: {status}; what failed is said in the log of who has the VDI open");
    }
}
