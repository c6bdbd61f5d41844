using System.Numerics;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Collect;

/// <summary>Marks on blocks of VDIs' files. One thread at a time.</summary>
internal sealed class BlockMarks
{
    private const int WordBits = 64;

    private readonly Dictionary<(uint Vdi, long Segment), ulong[]> _segments = [];

    /// <summary>Marks a block; false when it was marked before.</summary>
    public bool TryMark(BlockAddress at)
    {
        (uint, long) segment = (at.Vdi, VdiFormat.SegmentOf(at.Block));
        if (!_segments.TryGetValue(segment, out ulong[]? words))
            _segments[segment] = words = new ulong[VdiFormat.SegmentBlocks / WordBits];
        int index = (int)(at.Block % VdiFormat.SegmentBlocks);
        ulong bit = 1UL << (index % WordBits);
        if ((words[index / WordBits] & bit) != 0) return false;
        words[index / WordBits] |= bit;
        return true;
    }

    /// <summary>
    /// Marks the first of some blocks that follow each other in a segment, and those that are not marked where these
    /// are few.
    /// </summary>
    public void MarkShortRuns(BlockAddress first, int count, int minRun)
    {
        TryMark(first);
        ulong[] words = _segments[(first.Vdi, VdiFormat.SegmentOf(first.Block))];
        int at = (int)(first.Block % VdiFormat.SegmentBlocks), last = at + count;
        for (int end; at < last; at = end)
        {
            bool isMarked = IsMarked(words, at);
            for (end = at + 1; end < last && IsMarked(words, end) == isMarked; end++)
            {
            }

            if (isMarked || end - at >= minRun) continue;
            for (int i = at; i < end; i++) words[i / WordBits] |= 1UL << (i % WordBits);
        }
    }

    /// <summary>Whether any block of a file is marked.</summary>
    public bool HasAny(uint vdi) => _segments.Keys.Any(key => key.Vdi == vdi);

    /// <summary>How many blocks of a file are marked.</summary>
    public long CountOf(uint vdi) => _segments.Where(segment => segment.Key.Vdi == vdi)
        .Sum(segment => segment.Value.Sum(word => (long)ulong.PopCount(word)));

    /// <summary>How many blocks of a segment are marked.</summary>
    public int CountIn(uint vdi, long segment) => _segments.TryGetValue((vdi, segment), out ulong[]? words)
        ? words.Sum(word => BitOperations.PopCount(word))
        : 0;

    /// <summary>The segments of a file with marked blocks.</summary>
    public IEnumerable<long> SegmentsOf(uint vdi) =>
        _segments.Keys.Where(key => key.Vdi == vdi).Select(key => key.Segment);

    /// <summary>The runs of a segment's blocks that are not marked, counted from the segment's first.</summary>
    public IEnumerable<(int First, int Count)> FindUnmarked(uint vdi, long segment)
    {
        if (!_segments.TryGetValue((vdi, segment), out ulong[]? words))
        {
            yield return (0, VdiFormat.SegmentBlocks);
            yield break;
        }

        for (int first = 0, end; first < VdiFormat.SegmentBlocks; first = end)
        {
            bool isMarked = IsMarked(words, first);
            for (end = first + 1; end < VdiFormat.SegmentBlocks && IsMarked(words, end) == isMarked; end++)
            {
            }

            if (!isMarked) yield return (first, end - first);
        }
    }

    private static bool IsMarked(ulong[] words, int index) =>
        (words[index / WordBits] & (1UL << (index % WordBits))) != 0;
}
