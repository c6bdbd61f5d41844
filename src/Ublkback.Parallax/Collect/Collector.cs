using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Stores;

namespace Ublkback.Parallax.Collect;

/// <summary>
/// Frees the blocks that no VDI and no snapshot needs, while guests go on. A store has one collection at a time.
/// </summary>
/// <remarks>
/// It marks the blocks that the versions at its beginning need, and frees the others. A later version needs only these,
/// and blocks in segments that were unused or partly filled at the beginning; the collection leaves such segments
/// alone. So an unmarked block is never needed again, even if the collecting process is stopped for a long time and
/// goes on.
/// </remarks>
internal sealed class Collector(IVdiStore store, Action<string> warn)
{
    /// <summary>How long a command waits for another collection.</summary>
    public static readonly TimeSpan CommandPatience = TimeSpan.FromMinutes(10);

    private const int MaxPasses = 32; // on full storage; otherwise guests write more meanwhile, and it would not end

    private BlockMarks _marks = new();
    private List<CollectionRun> _runs = [];
    private volatile bool _isPaced = true;
    private readonly List<ClosedRun> _closed = [];
    private IReadOnlyList<uint> _unnamed = []; // when it was looked what is needed

    /// <summary>Whether segments are emptied also where a part of one gives space back.</summary>
    public bool MovesAll { get; init; }

    /// <summary>
    /// True if all sparse segments are emptied. Otherwise only enough of them that a file takes at most 1.25 times what
    /// is needed of it.
    /// </summary>
    public bool EmptiesAll { get; init; } = true;

    /// <summary>
    /// The blocks that the storage got back: freed blocks minus moved blocks. Where only a complete segment frees
    /// space, the blocks of such segments.
    /// </summary>
    public long Freed { get; private set; }

    /// <summary>
    /// The VDIs that no process held open and that have sparse segments. Opening and collecting them frees more.
    /// </summary>
    public IReadOnlyList<uint> Sparse { get; private set; } = [];

    /// <summary>True once no other collection of the store is waited for.</summary>
    public bool IsCollecting { get; private set; }

    /// <summary>How long it waits for another collection, if that is longer than the store's own wait.</summary>
    public TimeSpan Patience { get; init; }

    /// <summary>
    /// True if it pauses between steps, so that guests are served meanwhile. May change at any time. Any thread.
    /// </summary>
    public bool IsPaced
    {
        get => _isPaced;
        set => _isPaced = value;
    }

    /// <summary>
    /// Collects in the files of VDIs that this process has open for writing, and, when asked, in those that have no
    /// name any more, and in those of some VDIs that nobody has open.
    /// </summary>
    /// <remarks>
    /// Who calls it keeps the VDIs from being closed meanwhile. When a single one is to be closed, it ends.
    /// </remarks>
    /// <exception cref="OperationCanceledException">It has ended for that.</exception>
    /// <exception cref="TargetException">Something is damaged, so that it cannot be known what is needed; nothing was
    /// freed.</exception>
    public async Task RunAsync(
        IReadOnlyList<VdiImage> open, bool withUnnamed, IReadOnlyCollection<uint>? closed = null)
    {
        CancellationToken closing = ClosingOf(open);
        using IStoreLock alone = await Task.Run(
            () => store.LockCollection(Patience, closing), closing).ConfigureAwait(false);
        IsCollecting = true;
        await CollectAsync(open, alone, withUnnamed, closed ?? []).ConfigureAwait(false);
        // What was moved makes room when its segments are freed.
        for (int pass = 0; pass < (IsFull(open) ? MaxPasses : 1) && await MoveAsync().ConfigureAwait(false); pass++)
        {
            _marks = new BlockMarks();
            _closed.Clear();
            await CollectAsync(open, alone, withUnnamed: false, []).ConfigureAwait(false);
        }
    }

    private static CancellationToken ClosingOf(IReadOnlyList<VdiImage> open) =>
        open is [VdiImage only] ? only.Closing : CancellationToken.None;

    private static bool IsFull(IReadOnlyList<VdiImage> open) =>
        open.Any(image => image.Parts.Segments.Status == BlockStatus.NoSpace);

    // Empties segments of which little is needed. Returns whether something was moved.
    private async Task<bool> MoveAsync()
    {
        long all = 0;
        foreach (CollectionRun vdi in _runs.Where(vdi => MovesAll || vdi.Image.Parts.Container.FreesWholeSegments))
        {
            SparseSegments segments = new(vdi.Image, number => store.OpenOther(number, warn));
            double gain = EmptiesAll ? double.MaxValue : vdi.CountExcess(_marks);
            all += await vdi.Image.InvokeAsync(
                () => segments.EmptyAsync(vdi.Disk, vdi.FindSparse(_marks), gain, vdi.FreedSegments))
                .ConfigureAwait(false);
        }

        Freed -= all;
        return all > 0;
    }

    private async Task CollectAsync(
        IReadOnlyList<VdiImage> open, IStoreLock alone, bool withUnnamed, IReadOnlyCollection<uint> closed)
    {
        List<CollectionRun> vdis = _runs = [];
        try
        {
            foreach (VdiImage image in open)
                vdis.Add(await image.InvokeAsync(() => CollectionRun.BeginAsync(image)).ConfigureAwait(false));
            CancellationToken closing = ClosingOf(open);
            await Task.Run(() => Mark(vdis, closed, alone, closing), closing).ConfigureAwait(false);
            foreach (CollectionRun vdi in vdis)
            {
                await Task.Run(alone.Check).ConfigureAwait(false);
                Freed += await vdi.Image.InvokeAsync(() => vdi.FreeAsync(
                    _marks, () => IsPaced && !closing.IsCancellationRequested)).ConfigureAwait(false);
            }

            foreach (ClosedRun vdi in _closed)
            {
                closing.ThrowIfCancellationRequested();
                await Task.Run(alone.Check).ConfigureAwait(false);
                Freed += await Task.Run(() => vdi.Free(_marks, warn)).ConfigureAwait(false);
            }

            if (closed.Count > 0) Sparse = [.. _closed.Where(vdi => vdi.IsSparse(_marks)).Select(vdi => vdi.Vdi)];

            if (withUnnamed) await Task.Run(FreeUnnamed).ConfigureAwait(false);
        }
        finally
        {
            foreach (CollectionRun vdi in vdis) vdi.End();
        }
    }

    /// <summary>Blocks of a VDI's file that are needed.</summary>
    public long CountNeeded(uint vdi) => _marks.CountOf(vdi);

    private void Mark(
        List<CollectionRun> open, IReadOnlyCollection<uint> closed, IStoreLock alone, CancellationToken cancellation)
    {
        foreach (CollectionRun vdi in open) vdi.Mark(_marks);
        List<VdiVersion> needed = [.. open.SelectMany(vdi => vdi.Snapshots)];
        // Before the structure is locked, since it takes long to read logs. The state of a VDI tells when it is freed
        // whether it was opened since.
        foreach (uint vdi in closed)
        {
            cancellation.ThrowIfCancellationRequested();
            if (TryBegin(vdi) is ClosedRun run) _closed.Add(run);
        }

        using (IStoreLock structure = store.LockStructure())
        {
            HashSet<uint> named = [.. store.Names.Select(store.Find)];
            _unnamed = [.. store.Numbers.Where(vdi => !named.Contains(vdi))];
            _closed.RemoveAll(run => !named.Contains(run.Vdi));
            named.ExceptWith(open.Select(vdi => vdi.Image.Parts.Superblock.Vdi));
            foreach (uint vdi in named)
            {
                VdiMetadata file = store.ReadMetadata(vdi, warn);
                for (int i = 0; i < file.Head.TableBlocks; i++)
                    _marks.TryMark(new BlockAddress(file.Head.Table.Address.Value + (ulong)i));
                // What its log has is in its own file. Snapshots that only the log knows need nothing elsewhere that
                // its head does not.
                needed.Add(file.Head.Content.WithoutOpenLog);
                needed.AddRange(file.Snapshots.Select(snapshot => snapshot.Content));
            }

            // All that is of one moment: no clone was made meanwhile, and a snapshot that is deleted later had its
            // clones before.
            structure.Check();
        }

        try
        {
            using VersionWalker walker = new(vdi => store.OpenOther(vdi, warn), _marks) { Cancellation = cancellation };
            walker.Walk(needed);
            foreach (CollectionRun vdi in open) vdi.TakeShared(_marks);
            walker.Walk([.. open.Select(vdi => vdi.Disk)]);
        }
        catch (InvalidDataException failure)
        {
            alone.Check(); // or somebody else gave back what was needed when we began
            throw new TargetException(
                $"nothing is given back, since it cannot be known what is needed: {failure.Message}",
                "see 'ublkback vdi fsck'", failure);
        }
    }

    private ClosedRun? TryBegin(uint vdi)
    {
        try
        {
            return ClosedRun.TryBegin(store, vdi, warn);
        }
        catch (InvalidDataException failure)
        {
            warn($"VDI {vdi:x6}: nothing of it is given back: {failure.Message}");
            return null;
        }
        catch (Exception failure) when (
            failure is TargetException or IOException && !store.Numbers.Contains(vdi))
        {
            return null; // it was deleted meanwhile
        }
    }

    // What has lost its name since it was marked may have clones that are not marked.
    private void FreeUnnamed()
    {
        using IStoreLock structure = store.LockStructure();
        HashSet<uint> named = [.. store.Names.Select(store.Find)];
        TargetException? first = null; // one that cannot be removed does not keep the others
        foreach (uint vdi in _unnamed.Where(vdi => !named.Contains(vdi)))
        {
            structure.Check();
            try
            {
                FreeUnnamed(vdi);
            }
            catch (TargetException failure)
            {
                first ??= failure;
            }
        }

        if (first is not null) throw first;
    }

    private void FreeUnnamed(uint vdi)
    {
        if (!_marks.HasAny(vdi))
        {
            store.Remove(vdi);
            return;
        }

        using IVdiContainer file = store.OpenUnnamed(vdi, warn);
        Freed += SegmentSweep.Free(file, vdi, _marks, file.FindUsedSegments(), () => false).Blocks;
    }
}
