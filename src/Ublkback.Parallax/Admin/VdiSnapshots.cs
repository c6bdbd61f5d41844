using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Handlers;
using Ublkback.Parallax.Log;
using Ublkback.Parallax.Map;
using Ublkback.Parallax.Stores;

namespace Ublkback.Parallax.Admin;

/// <summary>The snapshots of VDIs, whoever has these open. Blocks the thread.</summary>
internal static class VdiSnapshots
{
    /// <summary>All of a VDI, in the order in which they were made, and its size.</summary>
    /// <exception cref="TargetException">They cannot be read.</exception>
    public static (IReadOnlyList<VdiSnapshot> Snapshots, long Size) Read(
        IVdiStore store, VdiMetadata known, IVdiContainer container)
    {
        SnapshotsReply? reply = VdiSocket.TryAskAsync(
            store, known.Superblock.Vdi, SnapshotsHandler.Instance, new SnapshotsRequest()).GetAwaiter().GetResult();
        return reply is null ? ReadFile(known, container) : (reply.ReadAll(), reply.SizeBytes);
    }

    /// <summary>
    /// The same as the file has it, of which the head may not know the last ones: they are in the log.
    /// </summary>
    /// <exception cref="TargetException">The log is damaged.</exception>
    public static (IReadOnlyList<VdiSnapshot> Snapshots, long Size) ReadFile(VdiMetadata known, IVdiContainer container)
    {
        try
        {
            return ReadLog(known, container);
        }
        catch (Exception failure) when (failure is IOException or InvalidDataException)
        {
            throw new TargetException(
                $"the snapshots cannot be read: {failure.Message}", "see 'ublkback vdi fsck'", failure);
        }
    }

    /// <summary>The snapshot that a name means.</summary>
    /// <exception cref="TargetException">There is none of that name.</exception>
    public static VdiSnapshot Find(IVdiStore store, VdiName name, VdiMetadata known, IVdiContainer container) =>
        Read(store, known, container).Snapshots.FirstOrDefault(snapshot => snapshot.Name == name.Snapshot)
        ?? throw new TargetException(
            $"VDI {name.Vdi} has no snapshot {name.Snapshot}", $"see 'ublkback vdi snapshots {name.Vdi}'");

    private static (IReadOnlyList<VdiSnapshot> Snapshots, long Size) ReadLog(
        VdiMetadata known, IVdiContainer container)
    {
        VdiVersion head = known.Head.Content;
        VdiContent content = new(
            known.Superblock.Vdi, new BlockMap(null!, head.Root),
            new SnapshotTable(known.Snapshots, known.Head.NextSnapshot), head);
        if (head.Vdi == known.Superblock.Vdi && head.End == 0)
        {
            new LogReader(container, head.Vdi, known.Superblock.Id)
                .Read(head.Start, 0, (entry, place, block, sequence) =>
            {
                if (entry.Kind is LogEntryKind.Snapshot or LogEntryKind.DeleteSnapshot or LogEntryKind.Resize)
                    content.Apply(entry, place, block, sequence);
            });
        }

        return (content.Snapshots.All, content.Size);
    }
}
