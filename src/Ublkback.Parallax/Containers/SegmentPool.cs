using System.Diagnostics;
using Ublkback.Block;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Containers;

/// <summary>
/// Segments that can be written at once: a few are allocated before they are wanted, on a helper thread. On the VDI's
/// worker.
/// </summary>
internal sealed class SegmentPool(IVdiContainer container, Action<string> warn)
{
    /// <summary>Segments that the guest's data leaves when the storage is full.</summary>
    public const int Reserve = 3;

    private const int UpkeepReserve = 2; // of these, what discards leave: for the log, and for nodes
    private const int Wanted = Reserve + 2;
    private const int ManyFlushes = 8; // while a segment is filled

    private static readonly TimeSpan VainPause = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan FreedPatience = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan FreedPause = TimeSpan.FromMilliseconds(500);

    private readonly Queue<long> _ready = new();
    private readonly Queue<long> _forNodes = new(); // kept back for those of the next checkpoint that are many
    private readonly LoopCondition _changed = new();
    private readonly LoopMutex _turns = new();
    private IEnumerator<long>? _free;
    private long _fullAt; // when what could be given back was not enough
    private long _garbage; // blocks that may not be needed any more, since it was last looked for such
    private bool _isAllocating;
    private bool _isCollecting; // as a part of allocating
    private bool _isToldFull;
    private bool _hasMore;
    private bool _hasFreed; // since the storage was found to be full

    /// <summary>The segments that are in use, or are about to be.</summary>
    public KnownSegments Known { get; } = new(container);

    /// <summary>Why there are no more; <see cref="BlockStatus.Okay"/> when there are.</summary>
    public BlockStatus Status { get; private set; } = BlockStatus.Okay;

    /// <summary>Flushes of the guest; they say what kind of segments is wanted.</summary>
    public int Flushes { get; set; }

    /// <summary>Has what is not needed given back, since the storage is full.</summary>
    public Func<Task>? OnFull { get; set; }

    /// <summary>How many nodes the next checkpoint writes at most: there must be room for them.</summary>
    public Func<long> CountNodes { get; set; } = () => 0;

    /// <summary>How many segments were taken, for whatever.</summary>
    public long Taken { get; private set; }

    /// <summary>How many segments were taken for what guests write.</summary>
    public long TakenForData { get; private set; }

    /// <summary>How many segments were taken for nodes.</summary>
    public long TakenForNodes { get; private set; }

    /// <summary>How many blocks the guest has discarded.</summary>
    public long Discarded { get; private set; }

    private long WantedForNodes => CountNodes() / VdiFormat.SegmentBlocks;

    private bool IsReserveWhole => _ready.Count >= Reserve && _forNodes.Count >= WantedForNodes;

    /// <summary>
    /// True if a segment that was taken before may be written. When the storage is full, data must not fill one that
    /// was taken from the reserve.
    /// </summary>
    public bool MayWrite(SegmentUse use) =>
        use != SegmentUse.Data || Status != BlockStatus.NoSpace || IsReserveWhole;

    /// <summary>True if there is a segment that may be taken.</summary>
    public bool CanTake(SegmentUse use) => QueueFor(use).Count > ReserveFor(use) && MayWrite(use);

    /// <summary>Takes a segment: its first block. False when there is none; then more are being allocated.</summary>
    public bool TryTake(SegmentUse use, out long firstBlock)
    {
        bool isThere = CanTake(use);
        firstBlock = 0;
        if (isThere)
        {
            long segment = QueueFor(use).Dequeue();
            firstBlock = segment * VdiFormat.SegmentBlocks;
            Known.Take(segment);
            Taken++;
            if (use == SegmentUse.Nodes) TakenForNodes++;
            if (use == SegmentUse.Data) TakenForData++;
            if (use == SegmentUse.Data) _garbage += VdiFormat.SegmentBlocks; // it may take the place of others
        }

        Refill();
        return isThere;
    }

    /// <summary>Begins to allocate more, if there are too few.</summary>
    public void Refill()
    {
        if (!_isAllocating && (_ready.Count < Wanted || _forNodes.Count < WantedForNodes)) _ = AllocateAsync();
    }

    /// <summary>Allocates segments beside the reserve, of the space kept back: for what makes room.</summary>
    public async Task ReplenishAsync(int count)
    {
        await AllocatedAsync(SegmentUse.Moves);
        bool isAlone = !_isAllocating;
        _isAllocating = true;
        try
        {
            int missing = Math.Max(0, Reserve + count - _ready.Count);
            (List<long> segments, _) = await TryAllocateAsync(missing, missing, _ => false);
            segments.ForEach(_ready.Enqueue);
        }
        finally
        {
            if (isAlone) _isAllocating = false;
            _changed.WakeAll();
        }
    }

    /// <summary>Blocks were discarded: perhaps they are not needed any more.</summary>
    public void AddDiscarded(long blocks)
    {
        Discarded += blocks;
        AddGarbage(blocks);
    }

    /// <summary>Blocks are perhaps not needed any more, so it is worth it to look for such.</summary>
    public void AddGarbage(long blocks) => _garbage = Math.Min(_garbage + blocks, VdiFormat.MaxSize);

    /// <summary>Waits for a segment: its first block. Without one the status says why.</summary>
    public async ValueTask<(BlockStatus Status, long FirstBlock)> TakeAsync(SegmentUse use)
    {
        long first;
        while (!TryTake(use, out first))
        {
            await AllocatedAsync(use);
            if (Status != BlockStatus.Okay && !CanTake(use)) return (Status, 0);
        }

        return (BlockStatus.Okay, first);
    }

    /// <summary>
    /// Waits until it is known whether there are more: see <see cref="Status"/>. What has to go on so that anything can
    /// be given back does not wait for that.
    /// </summary>
    public async ValueTask AllocatedAsync(SegmentUse use)
    {
        while (_isAllocating && !(use >= SegmentUse.Moves && _isCollecting)) await _changed.WaitAsync();
    }

    /// <summary>Segments have become free.</summary>
    public void AddFree(IEnumerable<long> segments)
    {
        _hasFreed |= Known.Forget(segments);
        _hasMore = true;
    }

    /// <summary>
    /// Gives those back that nobody took. The reserve stays when the storage is full, so that it is there when the VDI
    /// is opened again.
    /// </summary>
    public async Task EndAsync()
    {
        await AllocatedAsync(SegmentUse.Data);
        bool isKept = Status == BlockStatus.NoSpace && !container.IsRemote;
        List<long> unused = [.. _ready.Skip(isKept ? Reserve : 0), .. _forNodes];
        _ready.Clear();
        _forNodes.Clear();
        await Task.Run(() => unused.ForEach(segment => container.Free([BlockRun.OfSegment(segment)])));
    }

    private Queue<long> QueueFor(SegmentUse use) =>
        use == SegmentUse.Nodes && _forNodes.Count > 0 ? _forNodes : _ready;

    private static int ReserveFor(SegmentUse use) => use switch
    {
        SegmentUse.Data => Reserve,
        SegmentUse.Discards or SegmentUse.Moves => UpkeepReserve,
        _ => 0,
    };

    private async Task AllocateAsync()
    {
        _isAllocating = true;
        try
        {
            await AllocateOnceAsync();
            bool isWorthIt = Stopwatch.GetElapsedTime(_fullAt) >= VainPause
                || (_garbage >= VdiFormat.SegmentBlocks && !CanTake(SegmentUse.Data));
            if (Status == BlockStatus.NoSpace && OnFull is not null && isWorthIt)
            {
                _garbage = 0;
                await CollectAsync();
                await AllocateOnceAsync();
                await AwaitFreedAsync();
                if (Status == BlockStatus.NoSpace) _fullAt = Stopwatch.GetTimestamp();
            }
        }
        finally
        {
            _isAllocating = false;
            _changed.WakeAll();
        }

        if (Status == BlockStatus.NoSpace && !CanTake(SegmentUse.Data) && !_isToldFull)
            warn("the storage is full, and nothing there can be given back: delete snapshots and run 'ublkback vdi "
                + "gc', or make room");
        _isToldFull = Status == BlockStatus.NoSpace && (_isToldFull || !CanTake(SegmentUse.Data));
    }

    // Some seconds go by until a pool's quota and its full mark follow what was deleted.
    private async Task AwaitFreedAsync()
    {
        long began = Stopwatch.GetTimestamp();
        while (Status == BlockStatus.NoSpace && _hasFreed && container.FreesWholeSegments
            && Stopwatch.GetElapsedTime(began) < FreedPatience)
        {
            await BlockLoop.Current.DelayAsync(FreedPause);
            await AllocateOnceAsync();
        }

        _hasFreed = false;
    }

    private async Task CollectAsync()
    {
        _isCollecting = true;
        _changed.WakeAll();
        try
        {
            await OnFull!();
        }
        finally
        {
            _isCollecting = false;
        }
    }

    private async Task AllocateOnceAsync()
    {
        int forNodes = (int)Math.Max(0, WantedForNodes - _forNodes.Count);
        int reserve = Math.Max(0, Reserve - _ready.Count);
        int count = Math.Max(reserve, Wanted - _ready.Count);
        bool isFlushedOften = Flushes >= ManyFlushes * count;
        Flushes = 0;
        bool IsForNodes(int number) => number >= reserve && number < reserve + forNodes;
        (List<long> segments, BlockStatus status) = await TryAllocateAsync(
            count + forNodes, reserve + forNodes, number => isFlushedOften && !IsForNodes(number));
        for (int i = 0; i < segments.Count; i++) (IsForNodes(i) ? _forNodes : _ready).Enqueue(segments[i]);
        Status = status;
    }

    // One at a time: a collection that somebody asked for may need some while these are allocated too.
    private async Task<(List<long> Segments, BlockStatus Status)> TryAllocateAsync(
        int count, int reserve, Func<int, bool> isFlushedOften)
    {
        await _turns.EnterAsync();
        try
        {
            if (_hasMore) _free = null;
            _hasMore = false;
            (List<long> segments, BlockStatus status, _free) =
                await Task.Run(() => TryAllocate(_free, count, reserve, isFlushedOften));
            return (segments, status);
        }
        finally
        {
            _turns.Leave();
        }
    }

    private (List<long> Segments, BlockStatus Status, IEnumerator<long>? Free) TryAllocate(
        IEnumerator<long>? known, int count, int reserve, Func<int, bool> isFlushedOften)
    {
        List<long> segments = [];
        try
        {
            IEnumerator<long> free = known ?? container.FindFreeSegments().GetEnumerator();
            while (segments.Count < count && free.MoveNext())
            {
                if (!Known.TryAdd(free.Current)) continue;
                BlockStatus status = Known.Allocate(
                    free.Current, isFlushedOften(segments.Count), isReserve: segments.Count < reserve);
                if (status != BlockStatus.Okay) return (segments, status, null);
                segments.Add(free.Current);
            }

            return (segments, BlockStatus.Okay, free);
        }
        catch (IOException failure)
        {
            if (Status != BlockStatus.IoError) warn($"nothing can be written: {failure.Message}"); // else it was said
            return (segments, BlockStatus.IoError, null);
        }
    }
}
