using System.Diagnostics;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.Linux;
using Ublkback.Xen;

namespace Ublkback.Backend;

/// <summary>
/// Serves one ring, in turns on its worker. A turn answers what the image has finished and takes new requests, with one
/// batch of grant copies for the data of both; it is bounded in requests and bytes, so no ring can hold up the others on
/// its worker.
/// </summary>
/// <remarks>
/// Each request takes a reference on the blkif when it is dequeued and drops it when its response is published. Requests
/// start in the order of the ring: one that must wait, for its segments, for its pages to be mapped, for a barrier or an
/// overlapping discard, or for a buffer, keeps those behind it waiting too.
/// </remarks>
internal sealed class RingServer : IPolledWork
{
    /// <summary>Most requests taken, and most answered, in one turn.</summary>
    public const int MaxRequestsPerTurn = 64;

    /// <summary>
    /// Bytes after which a turn starts, and answers, no further requests: one of the largest, so its data stays in the cache.
    /// </summary>
    public const int MaxBytesPerTurn = 1 << 20;

    private static readonly long SizeCheckInterval = Stopwatch.Frequency; // a second

    private readonly Blkif _blkif;
    private readonly Worker _worker;
    private readonly BackRing _ring;
    private readonly IEventChannel _channel;
    private readonly EventPort _port;
    private readonly GuestMemory _memory;
    private readonly PersistentGrants? _persistent;
    private readonly RequestOrder _order;
    private readonly PollWindow _pollWindow = new();
    private readonly Action _onMapped;
    private readonly Stack<RingRequest> _free = new();
    private readonly Queue<RingRequest> _waiting = new(); // dequeued; not yet started
    private readonly Queue<RingRequest> _finished = new();
    private readonly List<RingRequest> _answering = new(MaxRequestsPerTurn);
    private readonly List<RingRequest> _starting = new(MaxRequestsPerTurn);
    private int _startedBytes; // in this turn
    private long _sizeCheckedAt;
    private bool _isPolled;
    private int _batchNumber; // of the batch of copies that is being gathered
    private Obstacle _obstacle;
    private bool _isStopped; // takes nothing more
    private bool _isBroken; // the guest's indices make no sense

    public RingServer(Blkif blkif, QueueParts parts, PerWorker<GrantCopyBatch> batches)
    {
        _blkif = blkif;
        _worker = parts.Worker;
        _ring = parts.Ring;
        _channel = parts.Channel;
        _persistent = parts.Persistent;
        Statistics = parts.Statistics;
        _memory = new GuestMemory(blkif.Domid, batches, parts.Persistent);
        _order = new RequestOrder(_ring.SlotCount);
        _port = new EventPort(_worker, _channel, () => _worker.Schedule(this));
        _onMapped = OnMapped;
        for (int i = 0; i < _ring.SlotCount; i++) _free.Push(new RingRequest(this));
    }

    /// <inheritdoc/>
    public bool IsScheduled { get; set; }

    /// <summary>The image.</summary>
    public IBlockImage Image => _blkif.Image;

    /// <summary>Where mishaps go.</summary>
    public VbdLog Log => _blkif.Log;

    private QueueStatistics Statistics { get; }

    /// <summary>Begins to serve: looks at the ring whether or not an event comes. On the worker.</summary>
    public void Start()
    {
        _port.Start();
        // The frontend may wait for an answer that an earlier server published without a notification.
        _channel.Notify();
        _worker.Schedule(this);
    }

    /// <summary>
    /// Takes no further requests; those in hand, also those that wait, are served to their end. On the worker.
    /// </summary>
    public void Stop() => _isStopped = true;

    /// <summary>Ends listening when nothing is in hand any more; the action then runs on the worker.</summary>
    public void StopListening(Action onStopped) => _port.Stop(onStopped);

    /// <inheritdoc/>
    public bool HasWork => _isStopped || _ring.CountWaiting() != 0;

    /// <inheritdoc/>
    public void EndPolling(bool hasWork)
    {
        _isPolled = false;
        if (hasWork) _worker.Schedule(this);
        else Sleep();
    }

    /// <summary>One turn.</summary>
    public void Run()
    {
        _startedBytes = 0;
        _starting.Clear();
        GatherFinished();
        TakeFromRing();
        AdmitWaiting();
        CompleteCopies();
        Answer();
        if (AdmitWaiting()) CompleteCopies(); // those whose segments came with the batch
        StartAdmitted();
        Continue();
    }

    /// <summary>The image has ended a request.</summary>
    public void OnHandled(RingRequest request, BlockStatus status)
    {
        _order.Remove(request);
        Finish(request, status switch
        {
            BlockStatus.Okay => BlkifStatus.Okay,
            BlockStatus.Unsupported => BlkifStatus.NotSupported,
            _ => BlkifStatus.Error,
        });
    }

    private void Finish(RingRequest request, BlkifStatus status)
    {
        request.Status = status;
        _finished.Enqueue(request);
        _worker.Schedule(this);
    }

    private void Refuse(RingRequest request, RequestFault fault)
    {
        request.IsRefused = true;
        Statistics.Refused++;
        Log.Refused(request.Wire, fault);
        Finish(request, fault == RequestFault.UnknownOperation ? BlkifStatus.NotSupported : BlkifStatus.Error);
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
        _pollWindow.OnBusy(now);
        count = Math.Min(count, MaxRequestsPerTurn);
        while (count-- > 0 && _free.TryPop(out RingRequest? request)) Take(request, now);
    }

    private void Take(RingRequest request, long now)
    {
        _ring.Take(out request.Wire);
        _blkif.AddReference();
        Statistics.InFlight++;
        request.Reset(now);
        RequestFault fault = RequestCheck.CheckSlot(request.Wire, Image.Geometry, out int segmentCount);
        if (fault != RequestFault.None)
        {
            Refuse(request, fault);
            return;
        }

        request.SegmentCount = segmentCount;
        if (request.Wire.Operation == BlkifOperation.Indirect) _ = TryFetchSegments(request);
        _waiting.Enqueue(request);
    }

    // Gives what waits, in order, all that it needs to start, as far as that is possible now; true when anything was begun.
    private bool AdmitWaiting()
    {
        bool hasBegun = false;
        _obstacle = Obstacle.None;
        while (_waiting.TryPeek(out RingRequest? request))
        {
            if (_startedBytes >= MaxBytesPerTurn) _obstacle = Obstacle.NextTurn;
            else if (!HasSegments(request)) hasBegun |= _obstacle == Obstacle.NextTurn;
            else if (IsRefused(request)) continue;
            else if (!_order.MayStart(request)) _obstacle = Obstacle.Others;
            else if (IsBeingMapped(request)) _obstacle = Obstacle.Others;
            else if (!HasBuffer(request)) _obstacle = Obstacle.Others;
            if (_obstacle != Obstacle.None) break;

            _ = _waiting.Dequeue();
            if (request.Wire.InnerOperation != BlkifOperation.Read && request.ByteCount > 0) _memory.FetchData(request);
            _startedBytes += request.ByteCount;
            _order.Add(request);
            _starting.Add(request);
            hasBegun = true;
        }

        return hasBegun;
    }

    // An indirect request's segments come with a batch of copies. Without them, sets the obstacle.
    private bool HasSegments(RingRequest request)
    {
        if (request.Wire.Operation != BlkifOperation.Indirect) return true;
        if (!request.SegmentPage.IsEmpty)
        {
            if (request.SegmentsCameWith != _batchNumber) return true;
            _obstacle = Obstacle.NextTurn;
            return false;
        }

        _obstacle = TryFetchSegments(request) ? Obstacle.NextTurn : Obstacle.Others;
        return false;
    }

    private bool TryFetchSegments(RingRequest request)
    {
        if (!_worker.Descriptions.TryRent(this, BlkifConstants.PageSize, out Memory<byte> page)) return false;
        request.SegmentPage = page;
        request.SegmentsCameWith = _batchNumber;
        _memory.FetchSegments(request);
        return true;
    }

    private bool IsRefused(RingRequest request)
    {
        if (request.IsChecked) return false;
        long length = 0;
        RequestFault fault = request.HasFailedCopy
            ? RequestFault.NoDescriptors
            : RequestCheck.CheckRange(request.Wire, request.Segments, Image.Geometry, out length);
        request.IsChecked = true;
        request.Length = length;
        if (fault == RequestFault.None) return false;
        Refuse(_waiting.Dequeue(), fault);
        return true;
    }

    // Whether the request must wait until pages that its frontend keeps granted are mapped.
    private bool IsBeingMapped(RingRequest request)
    {
        if (_persistent is null) return false;
        if (_persistent.IsMapping) return true;
        if (request.IsMapped) return false;
        foreach (RingRequest waiting in _waiting)
        {
            if (waiting.IsMapped || (waiting.Wire.Operation == BlkifOperation.Indirect && !waiting.IsChecked)) continue;
            waiting.IsMapped = true;
            foreach (BlkifSegment segment in waiting.Segments) _persistent.Want(segment.Gref);
            if (waiting.Wire.Operation == BlkifOperation.Indirect) _persistent.Want(waiting.Wire.DescriptorReference);
        }

        if (!_persistent.TryMapWanted(_worker, _onMapped)) return false;
        _blkif.AddReference(); // for the helper
        return true;
    }

    private void OnMapped()
    {
        _worker.Schedule(this);
        _blkif.DropReference();
    }

    private bool HasBuffer(RingRequest request)
    {
        if (request.ByteCount == 0) return true;
        if (!_worker.Buffers.TryRent(this, request.ByteCount, out Memory<byte> buffer)) return false;
        request.Buffer = buffer;
        return true;
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
                    request.Status == BlkifStatus.Okay, request.Length * BlockRequest.SectorSize, now - request.StartedAt);
            }

            _ring.Put(new BlkifResponse(request.Wire.Id, request.Wire.InnerOperation, request.Status));
            Free(request);
        }

        Statistics.InFlight -= _answering.Count;
        if (_ring.Publish()) _channel.Notify();
        foreach (RingRequest _ in _answering) _blkif.DropReference();
    }

    private void Free(RingRequest request)
    {
        if (!request.Buffer.IsEmpty) _worker.Buffers.Return(request.Buffer);
        if (!request.SegmentPage.IsEmpty) _worker.Descriptions.Return(request.SegmentPage);
        request.Buffer = default;
        request.SegmentPage = default;
        _free.Push(request);
    }

    private void CompleteCopies()
    {
        _memory.Complete();
        _batchNumber++;
    }

    private void StartAdmitted()
    {
        foreach (RingRequest request in _starting)
        {
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
            if (_obstacle == Obstacle.NextTurn) _worker.Schedule(this);
            return;
        }

        if (_isStopped || _isBroken) return;
        if (_free.Count == 0) return; // an answer frees a record and schedules the next turn
        if (_ring.CountWaiting() != 0)
        {
            _worker.Schedule(this);
            return;
        }

        _pollWindow.OnQuiet(Stopwatch.GetTimestamp());
        if (_isPolled) return;
        _isPolled = _pollWindow.Ticks > 0;
        if (_isPolled) _worker.Poll(this, _pollWindow.Ticks);
        else Sleep();
    }

    private void Sleep()
    {
        if (_ring.FinalCheck()) _worker.Schedule(this);
        else _port.Rearm();
    }

    // Like the kernel's backend: a disk that is in use notices that its file has grown.
    private void CheckSize(long now)
    {
        if (now - _sizeCheckedAt < SizeCheckInterval) return;
        _sizeCheckedAt = now;
        _blkif.OnActive();
    }

    /// <summary>Why the first request that waits cannot start.</summary>
    private enum Obstacle
    {
        /// <summary>It can.</summary>
        None,

        /// <summary>Nothing but the end of this turn.</summary>
        NextTurn,

        /// <summary>A buffer, another request or a mapping, which brings a turn when it is there.</summary>
        Others,
    }
}
