using System.Diagnostics;
using Ublkback.Backend.Connections;
using Ublkback.Backend.Grants;
using Ublkback.Backend.Report;
using Ublkback.Backend.Requests;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.Linux.Workers;
using Ublkback.Xen;

namespace Ublkback.Backend.Rings;

/// <summary>
/// Serves one ring, in turns on its worker. A turn answers what the image has finished and takes new requests, with one
/// batch of grant copies for the data of both; it is bounded in requests and bytes, so no ring can hold up the others
/// on its worker.
/// </summary>
/// <remarks>
/// Each request takes a reference on the blkif when it is dequeued and drops it when its response is published.
/// Requests start in the order of the ring: one that must wait, for its segments, for its pages to be mapped, for a
/// barrier or an overlapping discard, or for a buffer, keeps those behind it waiting too.
/// </remarks>
[DataPath]
internal sealed class RingServer : IWork
{
    /// <summary>Most requests taken, and most answered, in one turn.</summary>
    public const int MaxRequestsPerTurn = 64;

    /// <summary>
    /// Bytes after which a turn starts, and answers, no further requests: one of the largest, so its data stays in the
    /// cache.
    /// </summary>
    public const int MaxBytesPerTurn = 1 << 20;

    private static readonly long SizeCheckInterval = Stopwatch.Frequency; // a second

    private readonly BlkifConnection _blkif;
    private readonly Worker _worker;
    private readonly BackRing _ring;
    private readonly IEventChannel _channel;
    private readonly HeldRequests _held;
    private readonly GuestMemory _memory;
    private readonly WaitingRequests _waiting;
    private readonly RingIdle _quiet;
    private readonly RecoveredRequests _recovered;
    private readonly RingRequest[] _records; // one for each entry of the journal
    private readonly Stack<RingRequest> _free = new();
    private readonly Queue<RingRequest> _finished = new();
    private readonly List<RingRequest> _answering = new(MaxRequestsPerTurn);
    private long _sizeCheckedAt;
    private Action? _onLetGo;
    private bool _isLetGo;
    private bool _isStopped; // takes nothing more
    private bool _isBroken; // the guest's indices make no sense

    public RingServer(BlkifConnection blkif, QueueParts parts, PerWorker<GrantCopyBatch> batches)
    {
        _blkif = blkif;
        _worker = parts.Worker;
        _ring = parts.Ring;
        _channel = parts.Channel;
        Statistics = parts.Statistics;
        _held = new HeldRequests(this, blkif);
        _memory = new GuestMemory(blkif.Domid, batches, parts.Persistent);
        _waiting = new WaitingRequests(this, blkif, _worker, _memory, parts.Persistent, _ring.SlotCount);
        _quiet = new RingIdle(this, _worker, _ring, _channel, Statistics);
        _recovered = new RecoveredRequests(_ring);
        _records = new RingRequest[_ring.SlotCount];
        for (int entry = 0; entry < _records.Length; entry++)
        {
            _records[entry] = new RingRequest(this, entry);
            if (!_recovered.Holds(entry)) _free.Push(_records[entry]);
        }
    }

    /// <inheritdoc/>
    public bool IsScheduled { get; set; }

    /// <summary>The image.</summary>
    public IBlockImage Image => _blkif.Image;

    /// <summary>Whether flushes cannot promise anything, since a process before us lost writes.</summary>
    public bool HasLostWrites => _blkif.HasLostWrites;

    /// <summary>Where mishaps go.</summary>
    public VbdLog Log => _blkif.Log;

    private QueueStatistics Statistics { get; }

    // Requests taken and not answered.
    private int InHand => _ring.SlotCount - _free.Count - _recovered.Count;

    /// <summary>Begins to serve: looks at the ring whether or not an event comes. On the worker.</summary>
    public void Start()
    {
        _quiet.Start();
        // The frontend may wait for an answer that an earlier server published without a notification.
        _channel.Notify();
        _worker.Schedule(this);
        if (_recovered.Count == 0) _blkif.OnRecovered();
    }

    /// <summary>
    /// Takes no further requests; those in hand, also those that wait, are served to their end. Those that are held
    /// fail unless a successor is to go on with them. On the worker.
    /// </summary>
    public void Stop(bool isForSuccessor)
    {
        _isStopped = true;
        foreach (RingRequest record in _records) _ring.Forgive(record.Entry);
        if (!isForSuccessor) _held.FailAll();
    }

    /// <summary>
    /// Never touches the ring, the journal and the guest's pages again; the action then runs on the worker. Requests
    /// below the image go on in our own memory, and nobody learns how they end.
    /// </summary>
    public void LetGo(Action onLetGo)
    {
        _isLetGo = true;
        while (_waiting.TryGiveUp(out RingRequest? request)) _finished.Enqueue(request!);
        _held.GiveUp(_finished);
        _worker.Schedule(this);
        _onLetGo = onLetGo;
        if (!_memory.IsMapping) StopListening();
    }

    /// <summary>Tries again what is held. On the worker.</summary>
    public void Resume() => _held.TryAgain();

    /// <summary>Pages of the guest have been mapped.</summary>
    public void OnMapped()
    {
        _worker.Schedule(this);
        if (_isLetGo) StopListening();
    }

    /// <summary>
    /// When the oldest request in hand was taken, in ticks of the stopwatch; null: none is. Any thread.
    /// </summary>
    public long? FindOldest()
    {
        long oldest = long.MaxValue;
        foreach (RingRequest record in _records)
        {
            long startedAt = record.StartedAt;
            if (startedAt != 0 && startedAt < oldest) oldest = startedAt;
        }

        return oldest == long.MaxValue ? null : oldest;
    }

    /// <summary>One turn.</summary>
    public void Run()
    {
        if (_isLetGo)
        {
            DropFinished();
            return;
        }

        GatherFinished();
        TakeFromRing();
        _waiting.BeginTurn();
        _waiting.Admit();
        _memory.Complete();
        Answer();
        if (_waiting.Admit()) _memory.Complete(); // those whose segments came with the batch
        StartAdmitted();
        Continue();
    }

    /// <summary>The image has ended a request.</summary>
    public void OnHandled(RingRequest request, BlockStatus status)
    {
        if (_held.TryHold(request, status)) return;
        OnEnded(request, status);
    }

    /// <summary>A flush has failed.</summary>
    public void OnFlushFailed() => _blkif.OnFlushFailed();

    /// <summary>A request has ended for good.</summary>
    public void OnEnded(RingRequest request, BlockStatus status)
    {
        _waiting.OnHandled(request);
        Finish(request, status switch
        {
            BlockStatus.Okay => BlkifStatus.Okay,
            BlockStatus.Unsupported => BlkifStatus.NotSupported,
            _ => BlkifStatus.Error,
        });
    }

    /// <summary>The guest made a request wrong, so it never reaches the image.</summary>
    public void Refuse(RingRequest request, RequestFault fault)
    {
        request.IsRefused = true;
        Statistics.Refused++;
        Log.Refused(request.Wire, fault);
        Finish(request, fault == RequestFault.UnknownOperation ? BlkifStatus.NotSupported : BlkifStatus.Error);
    }

    private void Finish(RingRequest request, BlkifStatus status)
    {
        request.Status = status;
        _finished.Enqueue(request);
        _worker.Schedule(this);
    }

    private void GatherFinished()
    {
        _answering.Clear();
        int bytes = 0;
        while (_answering.Count < MaxRequestsPerTurn && bytes < MaxBytesPerTurn
            && _finished.TryDequeue(out RingRequest? request))
        {
            if (request.Wire.InnerOperation == BlkifOperation.Read && request.Status == BlkifStatus.Okay)
            {
                _memory.DeliverData(request);
                bytes += request.ByteCount;
            }

            _answering.Add(request);
        }
    }

    private void TakeFromRing()
    {
        if (_isStopped || _isBroken || _waiting.Count > 0) return;
        if (_recovered.Count > 0)
        {
            TakeRecovered();
            return;
        }

        int count = _ring.CountWaiting();
        if (count < 0)
        {
            _isBroken = true;
            Log.BrokenRing();
            return;
        }

        if (count == 0) return;
        long now = Stopwatch.GetTimestamp();
        CheckSize(now);
        _quiet.OnRequests(now);
        count = Math.Min(count, MaxRequestsPerTurn);
        while (count-- > 0 && _free.TryPop(out RingRequest? request))
        {
            _ring.Take(request.Entry, out request.Wire);
            Accept(request, now);
        }
    }

    // What a process before us had in hand comes first.
    private void TakeRecovered()
    {
        long now = Stopwatch.GetTimestamp();
        while (_recovered.TryNext(InHand, out int entry))
        {
            RingRequest request = _records[entry];
            _ring.Retake(entry, out request.Wire);
            request.IsRecovered = true;
            if (_ring.Attempts(entry) > RecoveredRequests.MaxAttempts) _blkif.Quarantine(request.Wire);
            Accept(request, now);
        }
    }

    private void Accept(RingRequest request, long now)
    {
        _blkif.AddReference();
        Statistics.InFlight++;
        request.Reset(now);
        if (_blkif.IsQuarantined)
        {
            Finish(request, BlkifStatus.Error);
            return;
        }

        RequestFault fault = RequestCheck.CheckSlot(request.Wire, Image.Geometry, out int segmentCount);
        if (fault != RequestFault.None)
        {
            Refuse(request, fault);
            return;
        }

        request.SegmentCount = segmentCount;
        _waiting.Add(request);
    }

    private void Answer()
    {
        if (_answering.Count == 0) return;
        long now = Stopwatch.GetTimestamp();
        foreach (RingRequest request in _answering)
        {
            if (request.HasFailedCopy) request.Status = BlkifStatus.Error;
            if (!request.IsRefused)
            {
                Statistics.Of(request.CountedAs).Record(
                    request.Status == BlkifStatus.Okay, request.Length * BlockRequest.SectorSize,
                    now - request.StartedAt);
            }

            if (request.IsRecovered) OnRecoveredAnswered(request);
            _ring.Put(request.Entry, new BlkifResponse(request.Wire.Id, request.Wire.InnerOperation, request.Status));
            Free(request);
        }

        Statistics.InFlight -= _answering.Count;
        if (_ring.Publish()) _channel.Notify();
        foreach (RingRequest _ in _answering) _blkif.DropReference();
    }

    private void OnRecoveredAnswered(RingRequest request)
    {
        request.IsRecovered = false;
        if (_recovered.CountAnswer()) _blkif.OnRecovered();
    }

    private void StopListening()
    {
        if (_onLetGo is not Action onLetGo) return;
        _onLetGo = null;
        _quiet.Stop(onLetGo);
    }

    // Nobody waits for their answers any more.
    private void DropFinished()
    {
        while (_finished.TryDequeue(out RingRequest? request))
        {
            Free(request);
            Statistics.InFlight--;
            _blkif.DropReference();
        }
    }

    private void Free(RingRequest request)
    {
        _waiting.Free(request);
        request.StartedAt = 0;
        _free.Push(request);
    }

    private void StartAdmitted()
    {
        foreach (RingRequest request in _waiting.Admitted)
        {
            KillPoint.ReachSector(request.First);
            if (request.HasFailedCopy) OnHandled(request, BlockStatus.IoError);
            else request.Start(Image);
        }
    }

    private void Continue()
    {
        if (_finished.Count > 0) _worker.Schedule(this);
        if (_waiting.Count > 0)
        {
            // Otherwise what it waits for brings the next turn.
            if (_waiting.WaitReason == WaitReason.NextTurn) _worker.Schedule(this);
            return;
        }

        if (_isStopped || _isBroken) return;
        if (_recovered.Count > 0)
        {
            if (InHand == 0) _worker.Schedule(this); // otherwise an answer brings the turn of the next
            return;
        }

        if (_free.Count == 0) return; // likewise
        if (_ring.CountWaiting() != 0) _worker.Schedule(this);
        else _quiet.Await();
    }

    // Like the kernel's backend: a disk that is in use notices that its file has grown.
    private void CheckSize(long now)
    {
        if (now - _sizeCheckedAt < SizeCheckInterval) return;
        _sizeCheckedAt = now;
        _blkif.OnActive();
    }
}
