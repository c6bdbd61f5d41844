using Ublkback.Block;

namespace Ublkback.Parallax;

/// <summary>Frees the blocks of a file that are not marked. Blocks the thread.</summary>
internal static class SegmentSweep
{
    /// <summary>Frees them in some segments; gives how many, and which segments have become free as a whole.</summary>
    public static (long Blocks, List<long> Segments) Free(IVdiContainer container, uint vdi, BlockMarks marks, IEnumerable<long> candidates)
    {
        long freed = 0;
        List<long> segments = [];
        foreach (long segment in candidates)
        {
            foreach ((int first, int count) in marks.FindUnmarked(vdi, segment))
            {
                if (container.Free((segment * VdiFormat.SegmentBlocks) + first, count) != BlockStatus.Okay) continue;
                freed += count;
                if (count == VdiFormat.SegmentBlocks) segments.Add(segment);
            }
        }

        return (freed, segments);
    }
}
