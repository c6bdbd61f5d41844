using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Map;

/// <summary>
/// What has changed of a map since its nodes were written. On the VDI's worker; while frozen, for any thread to read.
/// </summary>
[DataPath]
internal sealed class Overlay
{
    /// <summary>Changes after which nodes are to be written.</summary>
    public const int Capacity = 1 << 16;

    private readonly Dictionary<long, MapEntry> _blocks = [];
    private readonly HashSet<long> _clearedLeaves = []; // below the blocks: what is not among them is zeros there

    /// <summary>How many changes there are.</summary>
    public int Count => _blocks.Count + _clearedLeaves.Count;

    /// <summary>The leaves that have changes, from the first to the last.</summary>
    public long[] ChangedLeaves => // off the path: a checkpoint
        [.. _blocks.Keys.Select(block => MapRoot.NodeOf(block, 1)).Concat(_clearedLeaves).Distinct().Order()];

    /// <summary>What a block has become; false when it has not changed.</summary>
    public bool TryGet(long block, out MapEntry entry)
    {
        if (_blocks.TryGetValue(block, out entry)) return true;
        return _clearedLeaves.Count > 0 && _clearedLeaves.Contains(MapRoot.NodeOf(block, 1));
    }

    /// <summary>Whether all of a leaf reads as zeros, but for what <see cref="TryGet"/> finds.</summary>
    public bool IsCleared(long leaf) => _clearedLeaves.Contains(leaf);

    /// <summary>A block has changed.</summary>
    public void Set(long block, MapEntry entry) => _blocks[block] = entry;

    /// <summary>Blocks read as zeros from now on.</summary>
    public void Clear(long first, long count)
    {
        for (long block = first; block < first + count;)
        {
            long leaf = MapRoot.NodeOf(block, 1);
            bool isWhole = block % MapRoot.Fanout == 0 && first + count - block >= MapRoot.Fanout;
            long end = isWhole ? block + MapRoot.Fanout : block + 1;
            if (isWhole) _clearedLeaves.Add(leaf);
            for (; block < end; block++)
            {
                if (isWhole) _blocks.Remove(block);
                else _blocks[block] = default;
            }
        }
    }

    /// <summary>Takes over what another overlay has, that came before this one.</summary>
    public void AddEarlier(Overlay earlier)
    {
        foreach ((long block, MapEntry entry) in earlier._blocks)
        {
            if (!_clearedLeaves.Contains(MapRoot.NodeOf(block, 1))) _blocks.TryAdd(block, entry);
        }

        _clearedLeaves.UnionWith(earlier._clearedLeaves);
    }

    /// <summary>Forgets all.</summary>
    public void Reset()
    {
        _blocks.Clear();
        _clearedLeaves.Clear();
    }
}
