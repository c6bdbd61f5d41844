using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Map;

/// <summary>
/// What has changed of a map since its nodes were written. On the VDI's worker; while frozen, for any thread to read.
/// </summary>
/// <remarks>
/// Blocks that are cleared together are one entry for each whole node, of the highest level that fits. So a discard
/// costs the same whatever its length. Each change has a number, later changes have higher ones: a block counts only if
/// it was changed after all nodes above it were cleared.
/// </remarks>
[DataPath]
internal sealed class Overlay
{
    /// <summary>Changes after which nodes are to be written.</summary>
    public const int Capacity = 1 << 16;

    private readonly Dictionary<long, (MapEntry Entry, long Number)> _blocks = [];
    private readonly ClearedNodes _cleared = new();
    // of each level: the nodes that have other entries than before
    private readonly HashSet<long>[] _touched = ClearedNodes.MakeLevels<HashSet<long>>();
    private int _touchedCount;

    /// <summary>How many changes there are.</summary>
    public int Count => _blocks.Count + _cleared.Count;

    /// <summary>True if no block was changed, other than cleared with all of its node.</summary>
    public bool HasNoBlocks => _blocks.Count == 0;

    /// <summary>How many nodes must be written to bring the changes into the map, at most.</summary>
    public int NodeCount => _touchedCount;

    /// <summary>The leaves that have changes, from the first to the last.</summary>
    public long[] ChangedLeaves => // off the path: a checkpoint
        [.. _touched[1].Concat(_cleared.At(1)).Distinct().Order()];

    /// <summary>What a block has become; false when it has not changed.</summary>
    public bool TryGet(long block, out MapEntry entry)
    {
        long cleared = _cleared.Count == 0 ? 0 : _cleared.LastAt(block, 0);
        if (_blocks.TryGetValue(block, out (MapEntry Entry, long Number) change) && change.Number > cleared)
        {
            entry = change.Entry;
            return true;
        }

        entry = default;
        return cleared > 0;
    }

    /// <summary>True if all of a node reads as zeros, but for what <see cref="TryGet"/> finds.</summary>
    public bool IsCleared(long index, int level) => _cleared.LastAt(index, level) > 0;

    /// <summary>The nodes of a level that were cleared as a whole, from the first to the last.</summary>
    public long[] ClearedAt(int level) => [.. _cleared.At(level).Order()]; // off the path: a checkpoint

    /// <summary>A block has changed. The number is higher than that of every earlier change.</summary>
    public void Set(long block, MapEntry entry, long number)
    {
        _blocks[block] = (entry, number);
        Touch(MapRoot.NodeOf(block, 1), 1);
    }

    /// <summary>Blocks read as zeros from now on. The number is higher than that of every earlier change.</summary>
    public void Clear(long first, long count, long number)
    {
        for (long block = first, end = first + count; block < end;)
        {
            int level = LevelOf(block, end - block);
            if (level == 0) Set(block, default, number);
            else ClearNode(MapRoot.NodeOf(block, level), level, number);
            block += 1L << (level * MapRoot.FanoutBits);
        }
    }

    /// <summary>Takes over what another overlay has, that came before this one.</summary>
    public void AddEarlier(Overlay earlier)
    {
        foreach ((long block, (MapEntry Entry, long Number) change) in earlier._blocks)
        {
            if (_blocks.TryAdd(block, change)) Touch(MapRoot.NodeOf(block, 1), 1);
        }

        for (int level = 1; level <= MapRoot.MaxDepth; level++)
        {
            foreach (long index in earlier._cleared.At(level))
                ClearNode(index, level, earlier._cleared.NumberOf(index, level));
        }
    }

    /// <summary>Forgets all.</summary>
    public void Reset()
    {
        _blocks.Clear();
        _cleared.Reset();
        foreach (HashSet<long> nodes in _touched) nodes.Clear();
        _touchedCount = 0;
    }

    // The level of the largest node that begins at a block and has no more than some blocks; 0 if none does.
    private static int LevelOf(long block, long count)
    {
        int level = 0;
        while (level < MapRoot.MaxDepth)
        {
            long length = 1L << ((level + 1) * MapRoot.FanoutBits);
            if (block % length != 0 || count < length) break;
            level++;
        }

        return level;
    }

    // Nodes that fill the node above are one, so that what was cleared piece by piece takes no more memory.
    private void ClearNode(long index, int level, long number)
    {
        while (_cleared.Add(index, level, number))
        {
            index >>= MapRoot.FanoutBits;
            level++;
            Forget(index, level);
            number = _cleared.Join(index, level);
        }

        Touch(index >> MapRoot.FanoutBits, level + 1);
    }

    // What was changed before it was cleared.
    private void Forget(long index, int level)
    {
        int bits = level * MapRoot.FanoutBits;
        foreach ((long block, (MapEntry Entry, long Number) change) in _blocks)
        {
            if (block >> bits == index && change.Number <= _cleared.LastAt(block, 0)) _blocks.Remove(block);
        }
    }

    private void Touch(long index, int level)
    {
        for (; level <= MapRoot.MaxDepth && _touched[level].Add(index); level++)
        {
            index >>= MapRoot.FanoutBits;
            _touchedCount++;
        }
    }
}
