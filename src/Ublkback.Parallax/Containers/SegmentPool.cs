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
    /// <summary>
    /// Segments that are kept back for what must go on when the storage is full: giving snapshots up, and the map.
    /// </summary>
    public const int Reserve = 2;

    private const int Wanted = Reserve + 2;
    private const int ManyFlushes = 8; // while a segment is filled

    private static readonly TimeSpan VainPause = TimeSpan.FromSeconds(10);

    private readonly Queue<long> _ready = new();
    // ours since we opened the file, though nothing may be written there yet; also the gate
    private readonly HashSet<long> _known = [];
    private readonly HashSet<long> _unused = []; // of these, those that nobody has taken
    private HashSet<long>? _spared;
    private readonly LoopCondition _changed = new();
    private IEnumerator<long>? _free;
    private long _fullAt; // when what could be given back was not enough
    private bool _isAllocating;
    private bool _isCollecting; // as a part of allocating
    private bool _hasMore;

    /// <summary>Why there are no more; <see cref="BlockStatus.Okay"/> when there are.</summary>
    public BlockStatus Status { get; private set; } = BlockStatus.Okay;

    /// <summary>Flushes of the guest; they say what kind of segments is wanted.</summary>
    public int Flushes { get; set; }

    /// <summary>Has what is not needed given back, since the storage is full; tells whether anything was.</summary>
    public Func<Task<bool>>? OnFull { get; set; }

    /// <summary>How many segments were taken.</summary>
    public long Taken { get; private set; }

    /// <summary>
    /// Takes a segment: its first block. False when there is none now; then more are being allocated.
    /// </summary>
    /// <param name="isUrgent">Whether one that is kept back may be taken.</param>
    /// <param name="firstBlock">Its first block.</param>
    public bool TryTake(bool isUrgent, out long firstBlock)
    {
        firstBlock = 0;
        bool isThere = _ready.Count > (isUrgent ? 0 : Reserve);
        if (isThere)
        {
            long segment = _ready.Dequeue();
            firstBlock = segment * VdiFormat.SegmentBlocks;
            lock (_known) _unused.Remove(segment);
            Taken++;
        }

        if (_ready.Count < Wanted && !_isAllocating) _ = AllocateAsync();
        return isThere;
    }

    /// <summary>Waits for a segment: its first block. Without one the status says why.</summary>
    /// <param name="isUrgent">Whether one that is kept back may be taken.</param>
    public async ValueTask<(BlockStatus Status, long FirstBlock)> TakeAsync(bool isUrgent)
    {
        long first;
        while (!TryTake(isUrgent, out first))
        {
            await AllocatedAsync(isUrgent);
            if (Status != BlockStatus.Okay) return (Status, 0);
        }

        return (BlockStatus.Okay, first);
    }

    /// <summary>Waits until it is known whether there are more: see <see cref="Status"/>.</summary>
    /// <param name="isUrgent">Whether that is for what has to go on so that anything can be given back.</param>
    public async ValueTask AllocatedAsync(bool isUrgent)
    {
        while (_isAllocating && !(isUrgent && _isCollecting)) await _changed.WaitAsync();
    }

    /// <summary>
    /// Segments are not to be given out, even if they look free, until <see cref="AddFree"/> says so.
    /// </summary>
    public void MarkUsed(params IEnumerable<long> segments)
    {
        lock (_known) _known.UnionWith(segments);
    }

    /// <summary>
    /// Takes notice from now on of segments that nobody has taken yet, however they look in the file.
    /// </summary>
    public void BeginSparing()
    {
        lock (_known) _spared = [.. _unused];
    }

    /// <summary>The segments of which notice was taken.</summary>
    public IReadOnlyList<long> GetSpared()
    {
        lock (_known) return [.. _spared!];
    }

    /// <summary>Takes no notice any more. Any thread.</summary>
    public void EndSparing()
    {
        lock (_known) _spared = null;
    }

    /// <summary>Segments have become free.</summary>
    public void AddFree(IEnumerable<long> segments)
    {
        lock (_known) _known.ExceptWith(segments);
        _hasMore = true;
    }

    /// <summary>Gives those back that nobody took.</summary>
    public async Task EndAsync()
    {
        await AllocatedAsync(isUrgent: false);
        List<long> unused = [.. _ready];
        _ready.Clear();
        await Task.Run(() => unused.ForEach(segment => container.Free([BlockRun.OfSegment(segment)])));
    }

    private async Task AllocateAsync()
    {
        _isAllocating = true;
        BlockStatus before = Status;
        await AllocateOnceAsync();
        if (Status == BlockStatus.NoSpace && OnFull is not null && Stopwatch.GetElapsedTime(_fullAt) >= VainPause)
        {
            if (await CollectAsync()) await AllocateOnceAsync();
            if (Status == BlockStatus.NoSpace) _fullAt = Stopwatch.GetTimestamp();
        }

        _isAllocating = false;
        _changed.WakeAll();
        if (Status == BlockStatus.NoSpace && before != BlockStatus.NoSpace)
            warn("the storage is full, and nothing there can be given back: delete snapshots and run 'ublkback vdi "
                + "gc', or make room");
    }

    private async Task<bool> CollectAsync()
    {
        _isCollecting = true;
        _changed.WakeAll();
        try
        {
            return await OnFull!();
        }
        finally
        {
            _isCollecting = false;
        }
    }

    private async Task AllocateOnceAsync()
    {
        int count = Wanted - _ready.Count;
        bool isFlushedOften = Flushes >= ManyFlushes * count;
        Flushes = 0;
        IEnumerator<long>? known = _hasMore ? null : _free;
        _hasMore = false;
        int reserve = Math.Max(0, Reserve - _ready.Count);
        (List<long> segments, BlockStatus status, _free) =
            await Task.Run(() => TryAllocate(known, count, reserve, isFlushedOften));
        foreach (long segment in segments) _ready.Enqueue(segment);
        Status = status;
    }

    private (List<long> Segments, BlockStatus Status, IEnumerator<long>? Free) TryAllocate(
        IEnumerator<long>? known, int count, int reserve, bool isFlushedOften)
    {
        List<long> segments = [];
        try
        {
            IEnumerator<long> free = known ?? container.FindFreeSegments().GetEnumerator();
            while (segments.Count < count && free.MoveNext())
            {
                if (!TryKnow(free.Current)) continue;
                BlockStatus status = Allocate(free.Current, isFlushedOften, isReserve: segments.Count < reserve);
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

    private BlockStatus Allocate(long segment, bool isFlushedOften, bool isReserve)
    {
        BlockStatus status = BlockStatus.IoError;
        try
        {
            return status = container.Allocate(segment, isFlushedOften, isReserve);
        }
        finally
        {
            if (status != BlockStatus.Okay) Forget(segment);
        }
    }

    private bool TryKnow(long segment)
    {
        lock (_known)
        {
            if (!_known.Add(segment)) return false;
            _unused.Add(segment);
            _spared?.Add(segment);
            return true;
        }
    }

    private void Forget(long segment)
    {
        lock (_known)
        {
            _known.Remove(segment);
            _unused.Remove(segment);
        }
    }
}
