using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Linux.Workers;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Map;

/// <summary>
/// The nodes of a map that were used last, by the rule of the second chance. Nodes never change once they are written,
/// so nothing here is ever newer than the file. On the VDI's worker.
/// </summary>
/// <param name="read">Reads a block, and checks it.</param>
[DataPath]
internal sealed class NodeCache(Func<MapEntry, Memory<byte>, ValueTask<BlockStatus>> read) : IDisposable
{
    /// <summary>Bytes of nodes that are kept: those of 16 GiB.</summary>
    public const int MaxBytes = 64 << 20;

    private const int MaxNodes = MaxBytes / VdiFormat.BlockSize;

    // The nodes that are being loaded come on top: no more than requests are under way, as one pool has them.
    private readonly BufferPool _memory = new(2 * MaxBytes);
    private readonly Dictionary<ulong, Node> _nodes = [];
    private readonly Queue<Node> _byAge = new();
    private readonly LoopCondition _loaded = new();

    /// <summary>The content of a node, if it is there. It may be dropped at the caller's next wait.</summary>
    public bool TryGet(MapEntry at, out ReadOnlySpan<byte> content)
    {
        if (_nodes.TryGetValue(at.Address.Value, out Node? node) && node.IsLoaded)
        {
            node.IsUsed = true;
            content = node.Data.Span;
            return true;
        }

        content = default;
        return false;
    }

    /// <summary>Has a node here, if it can be read.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> LoadAsync(MapEntry at)
    {
        while (_nodes.TryGetValue(at.Address.Value, out Node? known))
        {
            // Who waited for somebody else's reading looks again: it may have been dropped since.
            if (known.IsLoaded) return BlockStatus.Okay;
            await _loaded.WaitAsync();
        }

        Node node = new(at.Address.Value, Rent()); // on the path: the cache does not have the node
        _nodes.Add(at.Address.Value, node);
        BlockStatus status = await read(at, node.Data);
        if (status == BlockStatus.Okay) Keep(node);
        else Drop(node);
        _loaded.WakeAll();
        return status;
    }

    /// <summary>Takes notice of a node that was just written.</summary>
    public void Add(MapEntry at, ReadOnlySpan<byte> content)
    {
        Node node = new(at.Address.Value, Rent()); // off the path: a checkpoint
        content.CopyTo(node.Data.Span);
        _nodes.Add(at.Address.Value, node);
        Keep(node);
    }

    /// <summary>Forgets nodes whose place is given back: another may be there one day.</summary>
    public void Forget(Func<BlockAddress, bool> isFreed)
    {
        // off the path: garbage collection
        foreach (ulong address in _nodes.Keys.Where(address => isFreed(new BlockAddress(address))).ToList())
        {
            _nodes[address].IsForgotten = true;
            _nodes.Remove(address);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _memory.Dispose();

    private void Keep(Node node)
    {
        node.IsLoaded = true;
        node.IsUsed = true;
        _byAge.Enqueue(node);
    }

    private void Drop(Node node)
    {
        if (!node.IsForgotten) _nodes.Remove(node.Address);
        _memory.Return(node.Data);
    }

    private Memory<byte> Rent()
    {
        while (_byAge.Count >= MaxNodes)
        {
            Node oldest = _byAge.Dequeue();
            if (oldest.IsUsed && !oldest.IsForgotten)
            {
                oldest.IsUsed = false;
                _byAge.Enqueue(oldest);
            }
            else
            {
                Drop(oldest);
            }
        }

        return _memory.TryRent(VdiFormat.BlockSize, out Memory<byte> data)
            ? data
            : throw new InvalidOperationException("more nodes are being read than requests can be under way");
    }

    private sealed class Node(ulong address, Memory<byte> data)
    {
        public ulong Address => address;

        public Memory<byte> Data => data;

        public bool IsLoaded { get; set; }

        public bool IsUsed { get; set; }

        public bool IsForgotten { get; set; }
    }
}
