using Ublkback.Block;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Map;

/// <summary>
/// Brings changes into a map: writes the changed leaves anew, the nodes that point to them, and so on up to a new root.
/// </summary>
/// <remarks>
/// A node that cannot be read does not stop this, since all writes of the disk would fail then. Its place is taken by a
/// node with the changes, of which all other entries refer to the node that cannot be read: reads there fail as before,
/// or succeed once the storage can read that node again.
/// </remarks>
internal sealed class MapMerger(BlockMap map, NodeCache nodes, NodeWriter writer, Action<string> warn)
{
    private readonly byte[] _node = new byte[VdiFormat.BlockSize];
    private bool _hasWarned; // in this checkpoint

    /// <summary>Writes the nodes, for a disk of a number of blocks; gives the new root. On the VDI's worker.</summary>
    public async Task<(BlockStatus Status, MapRoot Root)> RunAsync(Overlay changes, long blockCount)
    {
        _hasWarned = false;
        int oldDepth = map.Root.Depth;
        int depth = Math.Max(oldDepth, MapRoot.DepthFor(blockCount));
        long[] leaves = await Task.Run(() => changes.ChangedLeaves);
        (BlockStatus status, List<(long Index, MapEntry Entry)> updates) = await MergeLeavesAsync(leaves, changes);
        for (int level = 2; level <= depth && status == BlockStatus.Okay; level++)
        {
            updates = AddCleared(updates, changes.ClearedAt(level - 1));
            // Where the tree becomes higher, the old root is one of the nodes below.
            if (level == oldDepth + 1 && !changes.IsCleared(0, oldDepth) && updates is not [(0, _), ..])
                updates.Insert(0, (0, map.Root.Node));
            (status, updates) = await MergeAsync(level, updates, changes);
        }

        if (status == BlockStatus.Okay) status = await writer.FlushAsync();
        // Behind the first node of this level there is only what a larger disk had.
        MapEntry old = changes.IsCleared(0, depth) ? default : map.Root.Node;
        return (status, new MapRoot(updates is [(0, MapEntry root), ..] ? root : old, depth));
    }

    // What was cleared as a whole has no node, and nothing below it is looked at.
    private static List<(long Index, MapEntry Entry)> AddCleared(
        List<(long Index, MapEntry Entry)> updates, long[] cleared)
    {
        if (cleared.Length == 0) return updates;
        HashSet<long> changed = [.. updates.Select(update => update.Index)];
        foreach (long index in cleared.Where(index => !changed.Contains(index))) updates.Add((index, default));
        updates.Sort((one, other) => one.Index.CompareTo(other.Index));
        return updates;
    }

    private async Task<(BlockStatus Status, List<(long Index, MapEntry Entry)> Updates)> MergeLeavesAsync(
        long[] leaves, Overlay changes)
    {
        List<(long, MapEntry)> updates = new(leaves.Length);
        foreach (long leaf in leaves)
        {
            long first = leaf * MapRoot.Fanout;
            BlockStatus status = changes.IsCleared(leaf, 1) ? Clear() : await ReadAsync(leaf, 1);
            if (status == BlockStatus.Okay)
            {
                for (int i = 0; i < MapRoot.Fanout; i++)
                {
                    if (changes.TryGet(first + i, out MapEntry entry)) entry.Write(_node, i);
                }

                (status, MapEntry written) = await WriteAsync();
                updates.Add((leaf, written));
            }

            if (status != BlockStatus.Okay) return (status, updates);
        }

        return (BlockStatus.Okay, updates);
    }

    private async Task<(BlockStatus Status, List<(long Index, MapEntry Entry)> Updates)> MergeAsync(
        int level, List<(long Index, MapEntry Entry)> below, Overlay changes)
    {
        List<(long, MapEntry)> updates = [];
        for (int at = 0; at < below.Count;)
        {
            long index = below[at].Index / MapRoot.Fanout;
            BlockStatus status = changes.IsCleared(index, level) ? Clear() : await ReadAsync(index, level);
            for (; at < below.Count && below[at].Index / MapRoot.Fanout == index; at++)
                below[at].Entry.Write(_node, (int)(below[at].Index % MapRoot.Fanout));
            MapEntry written = default;
            if (status == BlockStatus.Okay) (status, written) = await WriteAsync();
            if (status != BlockStatus.Okay) return (status, updates);
            updates.Add((index, written));
        }

        return (BlockStatus.Okay, updates);
    }

    private async ValueTask<BlockStatus> ReadAsync(long index, int level)
    {
        if (level > map.Root.Depth) return Clear();
        long block = index << (level * 8);
        while (true)
        {
            (BlockStatus status, MapEntry entry) = await map.FindNodeAsync(block, level);
            if (status != BlockStatus.Okay) return Refer(entry, index, level);
            if (entry.Address.IsNone) return Clear();
            if (entry.Address.IsLost) return Fill(entry);
            if (nodes.TryGet(entry, out ReadOnlySpan<byte> node))
            {
                node.CopyTo(_node);
                return BlockStatus.Okay;
            }

            status = await nodes.LoadAsync(entry);
            if (status != BlockStatus.Okay) return Refer(entry with { OlderLevel = level }, index, level);
        }
    }

    private BlockStatus Refer(MapEntry older, long index, int level)
    {
        if (_hasWarned) return Fill(older);
        _hasWarned = true;
        warn($"a node of the map cannot be read ({older.Address}, level {older.OlderLevel}): "
            + $"{VdiFormat.OffsetOf(1L << (level * MapRoot.FanoutBits))} bytes of the disk from byte "
            + $"{VdiFormat.OffsetOf(index << (level * MapRoot.FanoutBits))} on are I/O errors where they are not "
            + "overwritten; writes go on; others of this checkpoint may be like it: see 'ublkback vdi fsck'");
        return Fill(older);
    }

    private BlockStatus Fill(MapEntry entry)
    {
        for (int i = 0; i < MapRoot.Fanout; i++) entry.Write(_node, i);
        return BlockStatus.Okay;
    }

    private BlockStatus Clear()
    {
        _node.AsSpan().Clear();
        return BlockStatus.Okay;
    }

    // A node without entries is none.
    private async ValueTask<(BlockStatus Status, MapEntry Entry)> WriteAsync()
    {
        if (!_node.AsSpan().ContainsAnyExcept((byte)0)) return (BlockStatus.Okay, default);
        (BlockStatus status, MapEntry entry) = await writer.AddAsync(_node);
        if (status == BlockStatus.Okay) nodes.Add(entry, _node);
        return (status, entry);
    }
}
