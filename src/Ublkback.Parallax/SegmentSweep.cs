using System.Diagnostics;
using Ublkback.Block;

namespace Ublkback.Parallax;

/// <summary>Frees the blocks of a file that are not marked. Blocks the thread.</summary>
internal static class SegmentSweep
{
    private const int SmallRun = 16;
    private const int PauseFactor = 9;

    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(2);

    /// <summary>Frees them in some segments; gives how many, and which segments have become free as a whole.</summary>
    /// <param name="container">The file.</param>
    /// <param name="vdi">Its number.</param>
    /// <param name="marks">What is needed.</param>
    /// <param name="candidates">The segments.</param>
    /// <param name="isPaced">Whether others use the file, for whom a tenth of the time is enough to be in the way.</param>
    public static (long Blocks, List<long> Segments) Free(IVdiContainer container, uint vdi, BlockMarks marks, IEnumerable<long> candidates, bool isPaced)
    {
        long freed = 0;
        TimeSpan busy = TimeSpan.Zero;
        List<long> segments = [];
        foreach (long segment in candidates)
        {
            List<(int First, int Count)> unmarked = [.. marks.FindUnmarked(vdi, segment)];
            bool isMostlyNeeded = unmarked.Sum(run => run.Count) < VdiFormat.SegmentBlocks / 4;
            foreach ((int first, int count) in unmarked)
            {
                // Many small holes cost more than they give.
                if (isMostlyNeeded && count < SmallRun) continue;
                long began = Stopwatch.GetTimestamp();
                if (container.Free((segment * VdiFormat.SegmentBlocks) + first, count) != BlockStatus.Okay) continue;
                freed += count;
                if (count == VdiFormat.SegmentBlocks) segments.Add(segment);
                if (isPaced) busy += Stopwatch.GetElapsedTime(began);
                if (busy < Pause) continue;
                Thread.Sleep(busy * PauseFactor);
                busy = TimeSpan.Zero;
            }
        }

        return (freed, segments);
    }
}
