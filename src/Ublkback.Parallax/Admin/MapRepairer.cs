using Ublkback.Block;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Map;

namespace Ublkback.Parallax.Admin;

/// <summary>
/// Writes maps anew without the nodes that cannot be read: what these covered is said to be lost. Nodes that maps share
/// stay shared. On the VDI's worker.
/// </summary>
/// <param name="nodes">Reads nodes.</param>
/// <param name="writer">Writes them.</param>
/// <param name="onLost">Takes what is lost: the first block of the disk, and how many.</param>
internal sealed class MapRepairer(NodeCache nodes, NodeWriter writer, Action<long, long> onLost)
{
    private readonly Dictionary<BlockAddress, MapEntry> _done = [];

    /// <summary>Goes through a map; gives its root, which is another one if something below it is.</summary>
    public async Task<(BlockStatus Status, MapEntry Root)> RunAsync(MapRoot map)
    {
        (BlockStatus status, MapEntry root) = await RepairAsync(map.Node, map.Depth, 0);
        if (status == BlockStatus.Okay) status = await writer.FlushAsync();
        return (status, root);
    }

    private async Task<(BlockStatus Status, MapEntry Node)> RepairAsync(MapEntry at, int level, long index)
    {
        if (!at.Address.IsPlace) return (BlockStatus.Okay, at);
        if (_done.TryGetValue(at.Address, out MapEntry done)) return (BlockStatus.Okay, done);
        BlockStatus status = BlockStatus.Okay;
        MapEntry mended = at;
        if (await ReadAsync(at) is not byte[] node)
        {
            onLost(index << (level * MapRoot.FanoutBits), 1L << (level * MapRoot.FanoutBits));
            mended = new MapEntry(BlockAddress.Lost, 0);
        }
        else
        {
            (status, mended) = await RepairBelowAsync(at, node, level, index);
        }

        _done[at.Address] = mended;
        return (status, mended);
    }

    // Null when it cannot be read.
    private async Task<byte[]?> ReadAsync(MapEntry at)
    {
        while (await nodes.LoadAsync(at) == BlockStatus.Okay)
        {
            if (nodes.TryGet(at, out ReadOnlySpan<byte> content)) return content.ToArray();
        }

        return null;
    }

    private async Task<(BlockStatus Status, MapEntry Node)> RepairBelowAsync(
        MapEntry at, byte[] node, int level, long index)
    {
        bool isChanged = false;
        long lost = 0; // entries before this one, without a gap
        for (int i = 0; i < MapRoot.Fanout; i++)
        {
            MapEntry below = MapEntry.Read(node, i);
            long number = (index << MapRoot.FanoutBits) + i; // along the level below
            MapEntry mended = below;
            if (below.OlderLevel > 0) mended = await ResolveAsync(below, number, level - 1);
            bool isLost = below.OlderLevel > 0 && mended.Address.IsLost;
            if (!isLost) ReportLost(number, level - 1, ref lost);
            else lost++;
            BlockStatus status = BlockStatus.Okay;
            if (level > 1) (status, mended) = await RepairAsync(mended, level - 1, number);
            if (status != BlockStatus.Okay) return (status, at);
            if (mended == below) continue;
            mended.Write(node, i);
            isChanged = true;
        }

        ReportLost((index + 1) << MapRoot.FanoutBits, level - 1, ref lost);
        return isChanged ? await writer.AddAsync(node) : (BlockStatus.Okay, at);
    }

    private void ReportLost(long end, int level, ref long count)
    {
        int bits = level * MapRoot.FanoutBits;
        if (count > 0) onLost((end - count) << bits, count << bits);
        count = 0;
    }

    // An older node, which a checkpoint could not read, has the entry that counts.
    private async Task<MapEntry> ResolveAsync(MapEntry entry, long index, int level)
    {
        long block = index << (level * MapRoot.FanoutBits);
        for (int at = entry.OlderLevel; at > level && entry.Address.IsPlace;)
        {
            if (await ReadAsync(entry) is not byte[] node) return new MapEntry(BlockAddress.Lost, 0);
            entry = MapEntry.Read(node, MapRoot.EntryOf(block, at));
            at = entry.OlderLevel > 0 ? entry.OlderLevel : at - 1;
        }

        return entry;
    }
}
