using System.Diagnostics;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Log;
using Ublkback.Parallax.Stores;

namespace Ublkback.Parallax.Collect;

/// <summary>
/// A VDI that nobody has open, while its file is collected. It is locked only while blocks are freed, for a moment at a
/// time, so that a guest gets its disk meanwhile. Then the rest is left. Blocks the thread.
/// </summary>
/// <remarks>
/// What is marked as needed is right as long as nobody has opened the VDI for writing since, which its state tells.
/// Both heads must say the same, and there must be no log after them: <see cref="TryBegin"/> looks.
/// </remarks>
internal sealed class ClosedRun
{
    private const int MinGain = 4; // segments; a checkpoint and the end of the log take two
    private const int Together = 8; // segments that are freed before the clock is looked at

    private static readonly TimeSpan Slice = TimeSpan.FromMilliseconds(100); // less than who opens a VDI waits for it
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(30);

    private readonly IVdiStore _store;
    private readonly string _state;
    private readonly IReadOnlyList<long> _candidates;
    private readonly bool _freesWholeSegments;

    private ClosedRun(
        IVdiStore store, uint vdi, string state, IReadOnlyList<long> candidates, bool freesWholeSegments)
    {
        _store = store;
        _state = state;
        _candidates = candidates;
        _freesWholeSegments = freesWholeSegments;
        Vdi = vdi;
    }

    /// <summary>The number of the VDI.</summary>
    public uint Vdi { get; }

    /// <summary>
    /// Takes notice of a VDI, before it is read what that needs; null if somebody has it open, or it must be opened
    /// once for a checkpoint.
    /// </summary>
    /// <exception cref="InvalidDataException">Its log is damaged.</exception>
    public static ClosedRun? TryBegin(IVdiStore store, uint vdi, Action<string> warn)
    {
        // The state first: all that is read after it is at least as new.
        if (store.ReadState(vdi) is not string state || store.IsWritten(vdi)) return null;
        (IVdiContainer container, VdiSuperblock superblock) = store.OpenOther(vdi, warn);
        using IVdiContainer opened = container;
        List<long> used = [.. container.FindUsedSegments()];
        bool isWhole = container.FreesWholeSegments;
        if (used.Count == 0) return new ClosedRun(store, vdi, state, used, isWhole);
        return FindSpared(container, superblock) is { } spared
            ? new ClosedRun(store, vdi, state, [.. used.Where(segment => !spared.Contains(segment))], isWhole)
            : null;
    }

    /// <summary>Frees what is not marked; gives the number of blocks.</summary>
    public long Free(BlockMarks marks, Action<string> warn)
    {
        long freed = 0;
        for (int at = 0; at < _candidates.Count;)
        {
            using (IVdiContainer? container = _store.TryOpenToCollect(Vdi, _state, warn))
            {
                if (container is null) break;
                long began = Stopwatch.GetTimestamp();
                do
                {
                    (long blocks, List<long> segments) = SegmentSweep.Free(
                        container, Vdi, marks, _candidates.Skip(at).Take(Together), () => false);
                    freed += _freesWholeSegments ? (long)segments.Count * VdiFormat.SegmentBlocks : blocks;
                    at += Together;
                }
                while (at < _candidates.Count && Stopwatch.GetElapsedTime(began) < Slice);
            }

            if (at < _candidates.Count) Thread.Sleep(Pause); // who waits for the VDI gets it now
        }

        return freed;
    }

    /// <summary>
    /// True if a process that has the VDI open could give much back by moving blocks: see
    /// <see cref="SparseSegments"/>.
    /// </summary>
    public bool IsSparse(BlockMarks marks)
    {
        if (!_freesWholeSegments) return false;
        List<long> sparse = [.. _candidates.Select(segment => (long)marks.CountIn(Vdi, segment))
            .Where(needed => needed is > 0 and <= SparseSegments.MaxNeeded)];
        return sparse.Count - (sparse.Sum() / VdiFormat.SegmentBlocks) >= MinGain;
    }

    // Where the log will go on; null if the heads differ, or there is a log.
    private static HashSet<long>? FindSpared(IVdiContainer container, VdiSuperblock superblock)
    {
        if (EssentialBlocks.Read(container).Heads is not [VdiHead head, VdiHead older]
            || older with { Generation = head.Generation } != head)
            return null;
        VdiVersion disk = head.Content;
        if (disk.End != 0) return [];
        LogPosition end =
            new LogReader(container, disk.Vdi, superblock.Id).Read(disk.Start, 0, (_, _, _, _) => { });
        return end.Sequence == disk.Start.Sequence
            ? [VdiFormat.SegmentOf(end.Block), VdiFormat.SegmentOf(end.NextSegment)]
            : null;
    }
}
