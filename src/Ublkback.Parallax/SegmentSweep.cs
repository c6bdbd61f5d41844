using System.Diagnostics;
using Ublkback.Block;

namespace Ublkback.Parallax;

/// <summary>Frees the blocks of a file that are not marked. Blocks the thread.</summary>
internal static class SegmentSweep
{
    private const int SmallRun = 16;
    private const long LargeRun = 8 * VdiFormat.SegmentBlocks;
    private const int PauseFactor = 4;

    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(2);

    /// <summary>Frees them in some segments; gives how many, and which segments have become free as a whole.</summary>
    /// <param name="container">The file.</param>
    /// <param name="vdi">Its number.</param>
    /// <param name="marks">What is needed.</param>
    /// <param name="candidates">The segments.</param>
    /// <param name="isPaced">Whether others use the file, for whom a fifth of the time is enough to be in the way.</param>
    public static (long Blocks, List<long> Segments) Free(IVdiContainer container, uint vdi, BlockMarks marks, IEnumerable<long> candidates, bool isPaced)
    {
        long freed = 0;
        TimeSpan busy = TimeSpan.Zero;
        List<long> segments = [];
        foreach ((long first, long count) in FindRuns(vdi, marks, candidates))
        {
            long began = Stopwatch.GetTimestamp();
            if (container.Free(first, count) != BlockStatus.Okay) continue;
            freed += count;
            for (long segment = VdiFormat.SegmentOf(first + VdiFormat.SegmentBlocks - 1); (segment + 1) * VdiFormat.SegmentBlocks <= first + count; segment++) segments.Add(segment);
            if (isPaced) busy += Stopwatch.GetElapsedTime(began);
            if (busy < Pause) continue;
            Thread.Sleep(busy * PauseFactor);
            busy = TimeSpan.Zero;
        }

        return (freed, segments);
    }

    // Runs go on from one segment into the next: each is freed at once, for which the I/O of others has to wait.
    private static IEnumerable<(long First, long Count)> FindRuns(uint vdi, BlockMarks marks, IEnumerable<long> candidates)
    {
        (long first, long count) = (0, 0);
        foreach (long segment in candidates)
        {
            List<(int First, int Count)> unmarked = [.. marks.FindUnmarked(vdi, segment)];
            bool isMostlyNeeded = unmarked.Sum(run => run.Count) < VdiFormat.SegmentBlocks / 4;
            foreach ((int at, int length) in unmarked)
            {
                // Many small holes cost more than they give.
                if (isMostlyNeeded && length < SmallRun) continue;
                long next = (segment * VdiFormat.SegmentBlocks) + at;
                if (next == first + count && count + length <= LargeRun)
                {
                    count += length;
                    continue;
                }

                if (count > 0) yield return (first, count);
                (first, count) = (next, length);
            }
        }

        if (count > 0) yield return (first, count);
    }
}
