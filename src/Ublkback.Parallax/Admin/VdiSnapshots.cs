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
    /// <param name="store">The store.</param>
    /// <param name="known">What the file of the VDI says.</param>
    /// <param name="container">That file.</param>
    /// <param name="patience">How long the process that has it open may take to answer; null for ever.</param>
    /// <exception cref="TargetException">They cannot be read.</exception>
    public static (IReadOnlyList<VdiSnapshot> Snapshots, long Size) Read(
        IVdiStore store, VdiMetadata known, IVdiContainer container, TimeSpan? patience = null)
    {
        const int Tries = 5;
        const int PauseMs = 50;
        uint vdi = known.Superblock.Vdi;
        for (int i = 1; ; i++)
        {
            string? state = store.ReadState(vdi);
            if (Ask(store, vdi, patience) is SnapshotsReply reply) return (reply.ReadAll(), reply.SizeBytes);
            try
            {
                return ReadFile(known, container);
            }
            catch (TargetException) when (i < Tries && (store.IsWritten(vdi) || store.ReadState(vdi) != state))
            {
                // A process has opened it meanwhile, and writes what was being read: that is no damage.
                Thread.Sleep(PauseMs);
                known = VdiMetadata.Read(container);
            }
        }
    }

    private static SnapshotsReply? Ask(IVdiStore store, uint vdi, TimeSpan? patience)
    {
        try
        {
            return VdiSocket.TryAskAsync(store, vdi, SnapshotsHandler.Instance, new SnapshotsRequest())
                .WaitAsync(patience ?? Timeout.InfiniteTimeSpan).GetAwaiter().GetResult();
        }
        catch (TimeoutException failure)
        {
            throw new TargetException(
                $"it is in use by {store.ReadHolder(vdi)?.ToString() ?? "another program"}, which has not answered for "
                + $"{patience!.Value.TotalSeconds:0} s", "see its log", failure);
        }
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
