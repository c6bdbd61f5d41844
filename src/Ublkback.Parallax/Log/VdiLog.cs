using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Linux.Workers;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Map;

namespace Ublkback.Parallax.Log;

/// <summary>
/// The end of a VDI's log, where everything is written. What is added in one turn of the worker is one batch, and one
/// write. On the VDI's worker.
/// </summary>
/// <remarks>
/// Batches are written beside each other, but end in their order: what was answered can be read again from the log
/// after a death, since all batches before are there as well. When one cannot be written, those behind it fail too, and
/// the log goes on after the next checkpoint, elsewhere.
/// </remarks>
[DataPath]
internal sealed class VdiLog : IWork
{
    /// <summary>Batches that are being written at most.</summary>
    public const int MaxUnderWay = 8;

    private const int MinBlocks = 4; // a smaller rest of a segment is left

    private readonly VdiSuperblock _superblock;
    private readonly VdiContent _content;
    private readonly SegmentPool _freeSegments;
    private readonly ImageAccess _file;
    private readonly BatchGathering? _gathering;
    private readonly Stack<LogBatch> _free = new();
    private readonly Queue<LogBatch> _underWay = new();
    private readonly LoopCondition _freed = new();
    private readonly List<long> _segments = [];
    private LogBatch? _open;
    private LogPosition _end;
    private int _made;

    public VdiLog(IVdiContainer container, VdiSuperblock superblock, VdiContent content, SegmentPool segments)
    {
        _superblock = superblock;
        _content = content;
        _freeSegments = segments;
        _file = new ImageAccess(container.Blocks);
        _gathering = container.IsRemote ? new BatchGathering(this) : null;
    }

    /// <summary>Who writes it, by number.</summary>
    public ulong Epoch { get; set; }

    /// <summary>Behind the last batch of which all that it says is in the map.</summary>
    public LogPosition Applied { get; private set; }

    /// <summary>The first batch that is not known to be durable.</summary>
    public ulong Durable { get; private set; }

    /// <summary>Whether it can be written. Otherwise a checkpoint has to say where it goes on.</summary>
    public bool IsOpen { get; private set; }

    /// <summary>How often a batch could not be written.</summary>
    public int Failures { get; private set; }

    /// <summary>The number of the next batch that will be written.</summary>
    public ulong Next => _end.Sequence;

    /// <summary>Called when more is known to be durable.</summary>
    public Action? OnDurable { get; set; }

    /// <summary>Blocks that were written since the last checkpoint began.</summary>
    public long BlocksSinceCheckpoint { get; set; }

    /// <summary>Called when batches have ended.</summary>
    public Action? OnEnded { get; set; }

    /// <summary>The segments that it has been in since the last checkpoint.</summary>
    public IReadOnlyList<long> Segments => _segments;

    public bool IsScheduled { get; set; }

    /// <summary>Goes on at a position.</summary>
    public void Open(LogPosition at)
    {
        Applied = _end = at;
        Durable = 0; // what was found there may be in memory only
        IsOpen = true;
        _segments.Clear();
        _segments.Add(VdiFormat.SegmentOf(at.Block));
    }

    /// <summary>The segment that it will be in next.</summary>
    public long NextSegment => VdiFormat.SegmentOf(_end.NextSegment);

    /// <summary>Batches of these numbers were written before; the next ones have higher numbers.</summary>
    public void Resume(ulong sequence) => Applied = Applied with { Sequence = Math.Max(Applied.Sequence, sequence) };

    /// <summary>All batches before one are durable.</summary>
    public void MarkDurable(ulong sequence)
    {
        Durable = Math.Max(Durable, sequence);
        OnDurable?.Invoke();
    }

    /// <summary>It is not written any more.</summary>
    public void Close() => IsOpen = false;

    /// <summary>It begins at a position now: what is before is in nodes.</summary>
    public void Trim(LogPosition start) =>
        _segments.RemoveRange(0, Math.Max(0, _segments.IndexOf(VdiFormat.SegmentOf(start.Block))));

    /// <summary>
    /// Waits for a batch that takes something. It must be added at once, before anything else is awaited. Without a
    /// batch the status says why.
    /// </summary>
    /// <param name="use">What is added: it says which of the space that is kept back may be used.</param>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<(BlockStatus Status, LogBatch? Batch)> ReserveAsync(SegmentUse use)
    {
        while (true)
        {
            if (!IsOpen) return (BlockStatus.IoError, null);
            bool mayWrite = _freeSegments.MayWrite(use);
            if (mayWrite && _open is { Room: > 0 }) return (BlockStatus.Okay, _open);
            if (mayWrite && (_open is not null || (_free.Count == 0 && _made == MaxUnderWay)))
            {
                await _freed.WaitAsync();
                continue;
            }

            bool fits = VdiFormat.SegmentOf(_end.Block) == VdiFormat.SegmentOf(_end.Block + MinBlocks);
            if (mayWrite && fits && _end.NextSegment != 0) return (BlockStatus.Okay, Begin());
            if (mayWrite && _freeSegments.TryTake(use, out long next))
            {
                // The headers of a segment say where the log goes on behind it.
                _end = _end with { Block = fits ? _end.Block : _end.NextSegment, NextSegment = next };
                return (BlockStatus.Okay, Begin());
            }

            _freeSegments.Refill();
            await _freeSegments.AllocatedAsync(use);
            BlockStatus status = _freeSegments.Status;
            if (status == BlockStatus.Okay || _freeSegments.CanTake(use)) continue;
            if (_open is null || !_freeSegments.MayWrite(use)) return (status, null);
        }
    }

    /// <summary>Has a batch written soon, to which something was added.</summary>
    public void Commit() => Worker.Current.Schedule(this);

    /// <summary>
    /// Waits until a batch, and all before it, are written and what they say is in the map. To be called at once.
    /// </summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> EndAsync(LogBatch batch)
    {
        batch.Users++;
        while (!batch.IsDone) await batch.Done.WaitAsync();
        BlockStatus status = batch.Status;
        if (--batch.Users == 0) Recycle(batch);
        return status;
    }

    /// <summary>Waits until all is written that was added. How it ended, those know who added it.</summary>
    public async ValueTask SettleAsync() // on the path: a write of a part of a block waits for the log
    {
        // Somebody may have an open batch and add nothing to it yet.
        LogBatch? last = _open is { EntryCount: > 0 } ? _open : _underWay.LastOrDefault();
        if (last is not null) await EndAsync(last);
    }

    /// <summary>The end of a turn: what was added in it is written.</summary>
    public void Run()
    {
        if (_open is not { EntryCount: > 0 } batch || _gathering?.IsDue(batch, _underWay.Count) == false) return;
        _open = null;
        _underWay.Enqueue(batch);
        LogPosition at = _end;
        BlocksSinceCheckpoint += 1 + batch.BlockCount;
        batch.Write(_file, _superblock.Id, Epoch, Durable, at);
        _end = at with { Block = at.Block + 1 + batch.BlockCount, Sequence = at.Sequence + 1, Chain = batch.Crc };
        _freed.WakeAll();
    }

    private LogBatch Begin()
    {
        if (!_free.TryPop(out LogBatch? batch))
        {
            batch = new LogBatch(EndWritten);
            _made++;
        }

        if (_segments[^1] != VdiFormat.SegmentOf(_end.Block)) _segments.Add(VdiFormat.SegmentOf(_end.Block));
        // A block is left at the end of a segment, so that the end of the log is always inside one.
        batch.Begin(_end, VdiFormat.SegmentBlocks - (int)(_end.Block % VdiFormat.SegmentBlocks) - 2);
        return _open = batch;
    }

    private void EndWritten()
    {
        while (_underWay.TryPeek(out LogBatch? batch) && batch.IsWritten)
        {
            _underWay.Dequeue();
            if (IsOpen && batch.Status != BlockStatus.Okay)
            {
                IsOpen = false;
                Failures++;
            }

            if (IsOpen) Apply(batch);
            batch.End(
                IsOpen ? BlockStatus.Okay : batch.Status == BlockStatus.Okay ? BlockStatus.IoError : batch.Status);
            if (batch.Users == 0) Recycle(batch);
        }

        if (_gathering is not null)
        {
            if (IsOpen) MarkDurable(Applied.Sequence); // a pool answers when it is durable
            Worker.Current.Schedule(this);
        }

        OnEnded?.Invoke();
    }

    private void Apply(LogBatch batch)
    {
        LogPosition at = batch.Position;
        long block = at.Block + 1;
        for (int i = 0, next = 0; i < batch.EntryCount; i++)
        {
            LogEntry entry = BatchHeader.GetEntry(batch.Header, i);
            if (entry.HasBlock)
                _content.Apply(
                    entry, new MapEntry(BlockAddress.Of(_superblock.Vdi, block++), entry.Value), batch.BlockAt(next++),
                    at.Sequence);
            else _content.Apply(entry, default, default, at.Sequence);
            if (entry.Kind == LogEntryKind.Discard) _freeSegments.AddDiscarded(entry.Value);
            else if (!entry.HasBlock) _freeSegments.AddGarbage(VdiFormat.SegmentBlocks);
        }

        Applied = at with { Block = block, Sequence = at.Sequence + 1, Chain = batch.Crc };
    }

    private void Recycle(LogBatch batch)
    {
        _free.Push(batch);
        _freed.WakeAll();
    }
}
