using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Containers;

/// <summary>Blocks of a file that lie one after the other, in as many segments as it takes.</summary>
internal readonly record struct BlockRun(long First, long Count)
{
    /// <summary>The block behind it.</summary>
    public long End => First + Count;

    /// <summary>A whole segment.</summary>
    public static BlockRun OfSegment(long segment) => new(segment * VdiFormat.SegmentBlocks, VdiFormat.SegmentBlocks);

    /// <summary>Its parts, each in a segment.</summary>
    public IEnumerable<BlockRun> BySegment()
    {
        for (long first = First, end; first < End; first = end)
        {
            end = Math.Min(End, (VdiFormat.SegmentOf(first) + 1) * VdiFormat.SegmentBlocks);
            yield return new BlockRun(first, end - first);
        }
    }
}
