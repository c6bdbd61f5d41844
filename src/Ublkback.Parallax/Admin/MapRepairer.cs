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
        else if (level > 1)
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
        for (int i = 0; i < MapRoot.Fanout; i++)
        {
            MapEntry below = MapEntry.Read(node, i);
            (BlockStatus status, MapEntry mended) =
                await RepairAsync(below, level - 1, (index << MapRoot.FanoutBits) + i);
            if (status != BlockStatus.Okay) return (status, at);
            if (mended == below) continue;
            mended.Write(node, i);
            isChanged = true;
        }

        return isChanged ? await writer.AddAsync(node) : (BlockStatus.Okay, at);
    }
}
