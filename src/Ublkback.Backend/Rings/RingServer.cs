using System.Diagnostics;
using Ublkback.Backend.Grants;
using Ublkback.Backend.Report;
using Ublkback.Backend.Requests;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.Linux.Workers;
using Ublkback.Xen;

namespace Ublkback.Backend.Rings;

/// <summary>
/// Serves one ring, in turns on its worker. A turn answers requests that the image has completed and takes new ones,
/// with one batch of grant copies for the data of both. It is bounded in requests and bytes (<see cref="TurnLimits"/>).
/// </summary>
/// <remarks>
/// Each request takes a reference on the connection when it is taken and drops it when its response is published.
/// Requests start in the order of the ring. A request may have to wait for its segments, for the mapping of its pages,
/// for a barrier or an overlapping discard, or for a buffer; then those behind it wait too.
/// </remarks>
[DataPath]
internal sealed class RingServer : IWork, IRequestOwner
{
    private readonly IRingOwner _owner;
    private readonly Worker _worker;
    private readonly BackRing _ring;
    private readonly IEventChannel _channel;
    private readonly QueueStatistics _statistics;
    private readonly HeldRequests _held;
    private readonly GuestMemory _memory;
    private readonly WaitingRequests _waiting;
    private readonly RingIdle _idle;
    private readonly RingIntake _intake;
    private readonly Queue<RingRequest> _finished = new();
    private readonly List<RingRequest> _answering = new(TurnLimits.MaxRequests);
    private readonly TurnWeight _weight = new();
    private bool _isRunning;
    private Action? _onDetached;
    private bool _isDetached;

    public RingServer(IRingOwner owner, ServedDisk disk, QueueParts parts, PerWorker<GrantCopyBatch> batches)
    {
        _owner = owner;
        _worker = parts.Worker;
        _ring = parts.Ring;
        _channel = parts.Channel;
        _statistics = parts.Statistics;
        _held = new HeldRequests(disk.HoldsFailed);
        _memory = new GuestMemory(disk.Domid, batches, parts.Persistent);
        _waiting = new WaitingRequests(owner, disk, parts, _memory, this, OnMapped);
        _idle = new RingIdle(this, parts);
        _intake = new RingIntake(owner, disk, parts, _idle, _waiting, _finished, this);
    }

    /// <inheritdoc/>
    public bool IsScheduled { get; set; }

    /// <inheritdoc/>
    public bool IsHeavy => _weight.IsHeavy;

    /// <summary>Starts to serve; the first turn needs no event. On the worker.</summary>
    public void Start()
    {
        _idle.Start();
        // The frontend may wait for an answer that an earlier server published without a notification.
        _channel.Notify();
        _worker.Schedule(this);
        _intake.Start();
    }

    /// <summary>
    /// Takes no further requests. Requests in flight are served to their end, also waiting ones. Held requests fail,
    /// unless a successor continues with them. On the worker.
    /// </summary>
    public void Stop(bool isForSuccessor)
    {
        _intake.Stop();
        if (isForSuccessor) return;
        _held.Close();
        foreach ((RingRequest request, BlockStatus status) in _held.TakeAll()) OnEnded(request, status);
    }

    /// <summary>
    /// Detaches from the ring, the journal and the guest's pages for good, then runs <paramref name="onDetached"/> on
    /// the worker. Requests below the image continue in our own memory, and their results are dropped.
    /// </summary>
    public void Detach(Action onDetached)
    {
        _isDetached = true;
        while (_waiting.TryGiveUp(out RingRequest? request)) _finished.Enqueue(request!);
        foreach ((RingRequest held, _) in _held.TakeAll()) _finished.Enqueue(held);
        _worker.Schedule(this);
        _onDetached = onDetached;
        if (!_memory.IsMapping) StopListening();
    }

    /// <summary>Retries the held requests. On the worker.</summary>
    public void Resume()
    {
        foreach ((RingRequest request, _) in _held.TakeAll()) request.Start();
    }

    /// <inheritdoc cref="RingIntake.FindOldest"/>
    public long? FindOldest() => _intake.FindOldest();

    /// <summary>One turn.</summary>
    public void Run()
    {
        if (_isDetached)
        {
            DropFinished();
            return;
        }

        _isRunning = true;
        int bytes = GatherFinished();
        int taken = _intake.Take();
        _waiting.BeginTurn();
        _waiting.Admit();
        _memory.Complete();
        Answer();
        if (_waiting.Admit()) _memory.Complete(); // those whose segments came with the batch
        foreach ((RingRequest request, RequestFault fault) in _waiting.Refused) _intake.Refuse(request, fault);
        StartAdmitted();
        _weight.OnTurn(taken + _answering.Count, bytes + _waiting.StartedBytes);
        _isRunning = false;
        Continue();
    }

    /// <inheritdoc/>
    public void OnHandled(RingRequest request, BlockStatus status)
    {
        if (_held.TryHold(request, status)) _owner.OnHeld(status);
        else OnEnded(request, status);
    }

    /// <inheritdoc/>
    public void OnFlushFailed() => _owner.OnFlushFailed();

    private void OnEnded(RingRequest request, BlockStatus status)
    {
        _waiting.OnHandled(request);
        request.Status = status switch
        {
            BlockStatus.Okay => BlkifStatus.Okay,
            BlockStatus.Unsupported => BlkifStatus.NotSupported,
            _ => BlkifStatus.Error,
        };
        _finished.Enqueue(request);
        if (!_isRunning) _worker.Schedule(this); // else the end of the turn does, which knows how heavy it was
    }

    // Returns the bytes that the guest gets.
    private int GatherFinished()
    {
        _answering.Clear();
        int bytes = 0;
        while (_answering.Count < TurnLimits.MaxRequests && bytes < TurnLimits.MaxBytes
            && _finished.TryDequeue(out RingRequest? request))
        {
            if (request.Wire.InnerOperation == BlkifOperation.Read && request.Status == BlkifStatus.Okay)
            {
                _memory.DeliverData(request);
                bytes += request.ByteCount;
            }

            _answering.Add(request);
        }

        return bytes;
    }

    private void Answer()
    {
        if (_answering.Count == 0) return;
        long now = Stopwatch.GetTimestamp();
        foreach (RingRequest request in _answering)
        {
            Debug.Assert(request.StartedAt != 0, "a request is answered twice");
            if (request.HasFailedCopy) request.Status = BlkifStatus.Error;
            if (!request.IsRefused)
            {
                _statistics.Of(request.CountedAs).Record(
                    request.Status == BlkifStatus.Okay, request.Length * BlockRequest.SectorSize,
                    now - request.StartedAt);
            }

            _intake.OnAnswered(request);
            _ring.Put(request.Entry, new BlkifResponse(request.Wire.Id, request.Wire.InnerOperation, request.Status));
            _intake.Free(request);
        }

        _statistics.InFlight -= _answering.Count;
        if (_ring.Publish()) _channel.Notify();
        foreach (RingRequest _ in _answering) _owner.DropReference();
    }

    private void StartAdmitted()
    {
        foreach (RingRequest request in _waiting.Admitted)
        {
            KillPoint.ReachSector(request.First);
            if (request.HasFailedCopy) OnHandled(request, BlockStatus.IoError);
            else request.Start();
        }
    }

    // Decides how the next turn comes.
    private void Continue()
    {
        if (_finished.Count > 0) _worker.Schedule(this);
        if (_waiting.Count > 0)
        {
            // Otherwise the buffer, the request or the mapping for which it waits brings the next turn.
            if (_waiting.WaitReason == WaitReason.NextTurn) _worker.Schedule(this);
            return;
        }

        IntakeState state = _intake.FindState();
        if (state == IntakeState.Ready) _worker.Schedule(this);
        else if (state == IntakeState.Empty) _idle.Await();
    }

    // Pages of the guest have been mapped.
    private void OnMapped()
    {
        _worker.Schedule(this);
        if (_isDetached) StopListening();
    }

    private void StopListening()
    {
        if (_onDetached is not Action onDetached) return;
        _onDetached = null;
        _idle.Stop(onDetached);
    }

    // After Detach the guest no longer waits for their answers.
    private void DropFinished()
    {
        while (_finished.TryDequeue(out RingRequest? request))
        {
            _intake.Free(request);
            _statistics.InFlight--;
            _owner.DropReference();
        }
    }
}
