using System.Diagnostics;
using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Collect;

/// <summary>Frees the blocks of a file that are not marked. Blocks the thread.</summary>
internal static class SegmentSweep
{
    private const int SmallRun = 16;
    private const long LargeRun = 8 * VdiFormat.SegmentBlocks;

    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(2);

    /// <summary>Frees them in some segments; gives how many, and which segments have become free as a whole.</summary>
    /// <param name="container">The file.</param>
    /// <param name="vdi">Its number.</param>
    /// <param name="marks">What is needed.</param>
    /// <param name="candidates">The segments.</param>
    /// <param name="isPaced">Returns true while guests use the file: then half of the time is theirs alone.</param>
    public static (long Blocks, List<long> Segments) Free(
        IVdiContainer container, uint vdi, BlockMarks marks, IEnumerable<long> candidates, Func<bool> isPaced)
    {
        long freed = 0;
        TimeSpan busy = TimeSpan.Zero;
        List<long> segments = [];
        foreach (List<BlockRun> runs in Gather(
            FindRuns(vdi, marks, candidates, container.FreesWholeSegments), container.IsRemote))
        {
            long began = Stopwatch.GetTimestamp();
            if (container.Free(runs) != BlockStatus.Okay) continue;
            freed += runs.Sum(run => run.Count);
            segments.AddRange(runs.SelectMany(run => run.BySegment()).Where(run => run.Count == VdiFormat.SegmentBlocks)
                .Select(run => VdiFormat.SegmentOf(run.First)));
            if (isPaced()) busy += Stopwatch.GetElapsedTime(began);
            if (busy < Pause) continue;
            Thread.Sleep(busy);
            busy = TimeSpan.Zero;
        }

        return (freed, segments);
    }

    // Far away it is the number of changes that takes the time; here each change has the I/O of others wait.
    private static IEnumerable<List<BlockRun>> Gather(IEnumerable<BlockRun> runs, bool bySegment)
    {
        List<BlockRun> gathered = [];
        foreach (BlockRun run in runs)
        {
            if (gathered.Count > 0
                && !(bySegment && VdiFormat.SegmentOf(gathered[0].First) == VdiFormat.SegmentOf(run.End - 1)))
            {
                yield return gathered;
                gathered = [];
            }

            gathered.Add(run);
        }

        if (gathered.Count > 0) yield return gathered;
    }

    // Runs go on from one segment into the next, so that there are fewer.
    private static IEnumerable<BlockRun> FindRuns(
        uint vdi, BlockMarks marks, IEnumerable<long> candidates, bool wholeOnly)
    {
        BlockRun last = default;
        foreach (long segment in candidates)
        {
            List<(int First, int Count)> unmarked = [.. marks.FindUnmarked(vdi, segment)];
            if (wholeOnly && unmarked is not [(_, VdiFormat.SegmentBlocks)]) continue;
            bool isMostlyNeeded = unmarked.Sum(run => run.Count) < VdiFormat.SegmentBlocks / 4;
            foreach ((int at, int length) in unmarked)
            {
                // Many small holes cost more than they give.
                if (isMostlyNeeded && length < SmallRun) continue;
                BlockRun next = new((segment * VdiFormat.SegmentBlocks) + at, length);
                if (next.First == last.End && last.Count + length <= LargeRun)
                {
                    last = last with { Count = last.Count + length };
                    continue;
                }

                if (last.Count > 0) yield return last;
                last = next;
            }
        }

        if (last.Count > 0) yield return last;
    }
}
