using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Map;

/// <summary>
/// The nodes of a map that were cleared as a whole, each with the number of the change that cleared it last. On the
/// VDI's worker; while its overlay is frozen, for any thread to read.
/// </summary>
[DataPath]
internal sealed class ClearedNodes
{
    private readonly Dictionary<long, long>[] _numbers = MakeLevels<Dictionary<long, long>>();
    // of a node that was not cleared: how many of the nodes below it were
    private readonly Dictionary<long, int>[] _children = MakeLevels<Dictionary<long, int>>();

    /// <summary>How many nodes there are.</summary>
    public int Count { get; private set; }

    /// <summary>The nodes of a level.</summary>
    public IReadOnlyCollection<long> At(int level) => _numbers[level].Keys;

    /// <summary>The number of the change that cleared a node.</summary>
    public long NumberOf(long index, int level) => _numbers[level][index];

    /// <summary>
    /// The number of the last change that cleared a node of a level, or any node above it; 0 if there is none. Blocks
    /// are level 0.
    /// </summary>
    public long LastAt(long index, int level)
    {
        long last = 0;
        for (int at = level; at <= MapRoot.MaxDepth && Count > 0; at++)
        {
            if (_numbers[at].Count > 0 && _numbers[at].TryGetValue(index, out long number))
                last = Math.Max(last, number);
            index >>= MapRoot.FanoutBits;
        }

        return last;
    }

    /// <summary>Adds a node; true if the node above it is cleared as a whole now.</summary>
    public bool Add(long index, int level, long number)
    {
        if (_numbers[level].TryGetValue(index, out long known))
        {
            _numbers[level][index] = Math.Max(known, number);
            return false;
        }

        _numbers[level].Add(index, number);
        Count++;
        if (level == MapRoot.MaxDepth) return false;
        long above = index >> MapRoot.FanoutBits;
        int children = _children[level + 1].GetValueOrDefault(above) + 1;
        _children[level + 1][above] = children;
        return children == MapRoot.Fanout;
    }

    /// <summary>
    /// Removes all nodes below one, which are to be that one now; gives its number. What was changed before any of
    /// these was cleared is not known any more.
    /// </summary>
    public long Join(long index, int level)
    {
        long first = long.MaxValue;
        for (int i = 0; i < MapRoot.Fanout; i++)
            first = Math.Min(first, _numbers[level - 1][(index << MapRoot.FanoutBits) + i]);
        for (int at = 1; at < level; at++)
        {
            int bits = (level - at) * MapRoot.FanoutBits;
            foreach (long node in _numbers[at].Keys)
            {
                if (node >> bits == index && _numbers[at].Remove(node)) Count--;
            }

            foreach (long node in _children[at].Keys)
            {
                if (node >> bits == index) _children[at].Remove(node);
            }
        }

        _children[level].Remove(index);
        return first;
    }

    /// <summary>Forgets all.</summary>
    public void Reset()
    {
        foreach (Dictionary<long, long> level in _numbers) level.Clear();
        foreach (Dictionary<long, int> level in _children) level.Clear();
        Count = 0;
    }

    /// <summary>Makes something for each level, from 0 to the highest.</summary>
    public static T[] MakeLevels<T>() // off the path: the start
        where T : new() =>
        [.. Enumerable.Range(0, MapRoot.MaxDepth + 1).Select(_ => new T())];
}
