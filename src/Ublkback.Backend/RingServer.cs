using System.Diagnostics;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.Linux;
using Ublkback.Xen;

namespace Ublkback.Backend;

/// <summary>
/// Serves one ring, in turns on its worker. A turn answers what the image has finished and takes new requests, with one
/// batch of grant copies for the data of both; it is bounded, so no ring can hold up the others on its worker.
/// </summary>
/// <remarks>
/// Each request takes a reference on the blkif when it is dequeued and drops it when its response is published.
/// </remarks>
internal sealed class RingServer : IWork
{
    /// <summary>Most requests taken, and most answered, in one turn.</summary>
    public const int MaxRequestsPerTurn = 64;

    private const int MaxCopiesPerTurn = 2 * MaxRequestsPerTurn * BlkifConstants.MaxDirectSegments;

    private readonly Blkif _blkif;
    private readonly Worker _worker;
    private readonly IHypervisor _hypervisor;
    private readonly IBlockImage _image;
    private readonly BackRing _ring;
    private readonly IEventChannel _channel;
    private readonly EventPort _port;
    private readonly Stack<RingRequest> _free = new();
    private readonly Queue<RingRequest> _finished = new();
    private readonly List<RingRequest> _answering = new(MaxRequestsPerTurn);
    private readonly List<RingRequest> _starting = new(MaxRequestsPerTurn);
    private readonly GrantCopy[] _copies = new GrantCopy[MaxCopiesPerTurn];
    private int _copyCount;
    private RingRequest? _waitingForBuffer; // dequeued and checked; others wait behind it
    private bool _isStopped; // takes nothing more
    private bool _isBroken; // the guest's indices make no sense

    public RingServer(
        Blkif blkif, Worker worker, IHypervisor hypervisor, IBlockImage image, BackRing ring, IEventChannel channel)
    {
        _blkif = blkif;
        _worker = worker;
        _hypervisor = hypervisor;
        _image = image;
        _ring = ring;
        _channel = channel;
        _port = new EventPort(worker, channel, () => worker.Schedule(this));
        for (int i = 0; i < ring.SlotCount; i++) _free.Push(new RingRequest(this));
    }

    /// <inheritdoc/>
    public bool IsScheduled { get; set; }

    private VbdStatistics Statistics => _blkif.Statistics;

    /// <summary>Begins to serve: looks at the ring whether or not an event comes. On the worker.</summary>
    public void Start()
    {
        _port.Start();
        // The frontend may wait for an answer that an earlier server published without a notification.
        _channel.Notify();
        _worker.Schedule(this);
    }

    /// <summary>Takes no further requests; those in hand go on. On the worker.</summary>
    public void Stop()
    {
        _isStopped = true;
        if (_waitingForBuffer is null) return;
        // It was dequeued, so it must be answered.
        Finish(_waitingForBuffer, BlkifStatus.Error);
        _waitingForBuffer = null;
    }

    /// <summary>Ends listening when nothing is in hand any more; the action then runs on the worker.</summary>
    public void StopListening(Action onStopped) => _port.Stop(onStopped);

    /// <summary>One turn.</summary>
    public void Run()
    {
        _copyCount = 0;
        GatherFinished();
        TakeWaiting();
        Copy();
        Answer();
        StartTaken();
        Continue();
    }

    /// <summary>The image has ended a request, or one half of a flush with data.</summary>
    public void OnHandled(RingRequest request, BlockStatus status)
    {
        if (request.Operation == BlockOperation.Flush && request.WritesAfterFlush && status == BlockStatus.Okay)
        {
            request.Operation = BlockOperation.Write;
            request.Start(_image);
            return;
        }

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

    private void GatherFinished()
    {
        _answering.Clear();
        while (_answering.Count < MaxRequestsPerTurn && _finished.TryDequeue(out RingRequest? request))
        {
            request.CopyCount = 0;
            if (request.Operation == BlockOperation.Read && request.Status == BlkifStatus.Okay) GatherCopies(request);
            _answering.Add(request);
        }
    }

    private void TakeWaiting()
    {
        _starting.Clear();
        if (_isStopped || _isBroken) return;
        int waiting = _ring.CountWaiting();
        if (waiting < 0)
        {
            _isBroken = true;
            _blkif.Log.BrokenRing();
            return;
        }

        if (_waitingForBuffer is RingRequest first && !TryAdmit(first)) return;
        _waitingForBuffer = null;
        while (waiting-- > 0 && _starting.Count < MaxRequestsPerTurn && _free.TryPop(out RingRequest? request))
        {
            if (!Take(request) || TryAdmit(request)) continue;
            _waitingForBuffer = request;
            return;
        }
    }

    // Dequeues one request; false when it was refused, and so is finished.
    private bool Take(RingRequest request)
    {
        _ring.Take(out request.Wire);
        _blkif.AddReference();
        Statistics.InFlight++;
        request.StartedAt = Stopwatch.GetTimestamp();
        request.Data = default;
        request.IsRefused = false;
        request.Sector = request.Wire.Sector;
        request.Operation = request.Wire.Operation switch
        {
            BlkifOperation.Read => BlockOperation.Read,
            BlkifOperation.Write => BlockOperation.Write,
            _ => BlockOperation.Flush,
        };
        RequestFault fault = RequestCheck.Check(request.Wire, _image.Geometry, out int sectorCount);
        request.SectorCount = sectorCount;
        if (fault == RequestFault.None) return true;

        request.IsRefused = true;
        Statistics.Refused++;
        _blkif.Log.Refused(request.Wire, fault);
        Finish(request, fault == RequestFault.UnknownOperation ? BlkifStatus.NotSupported : BlkifStatus.Error);
        return false;
    }

    // Gives a request its buffer; false when there is none now.
    private bool TryAdmit(RingRequest request)
    {
        request.CopyCount = 0;
        if (request.SectorCount > 0)
        {
            if (!_worker.Buffers.TryRent(request.SectorCount * BlockRequest.SectorSize, out Memory<byte> data))
                return false;
            request.Data = data;
            if (request.Operation != BlockOperation.Read) GatherCopies(request);
        }

        _starting.Add(request);
        return true;
    }

    private void GatherCopies(RingRequest request)
    {
        request.FirstCopy = _copyCount;
        request.CopyCount = request.Wire.SegmentCount;
        nint address = PinnedMemory.AddressNumberOf(request.Data);
        for (int i = 0; i < request.Wire.SegmentCount; i++)
        {
            BlkifSegment segment = request.Wire.Segments[i];
            int offset = segment.First * BlockRequest.SectorSize;
            int length = segment.SectorCount * BlockRequest.SectorSize;
            _copies[_copyCount++] = request.Operation == BlockOperation.Read
                ? GrantCopy.ToGrant(address, _blkif.Domid, segment.Gref, offset, length)
                : GrantCopy.FromGrant(_blkif.Domid, segment.Gref, offset, address, length);
            address += length;
        }
    }

    private void Copy()
    {
        if (_copyCount == 0) return;
        try
        {
            _hypervisor.CopyGrants(_copies.AsSpan(0, _copyCount));
        }
        catch (LinuxException failure)
        {
            // No element's status is valid then, so all fail.
            _blkif.Log.FailedCopyBatch(failure.Message);
            foreach (ref GrantCopy copy in _copies.AsSpan(0, _copyCount)) copy.Status = GrantCopy.PermissionDenied;
        }
    }

    private bool HasCopied(RingRequest request)
    {
        for (int i = 0; i < request.CopyCount; i++)
        {
            ref GrantCopy copy = ref _copies[request.FirstCopy + i];
            if (copy.Status == GrantCopy.Okay) continue;
            _blkif.Log.FailedCopy(request.Wire, request.Wire.Segments[i].Gref, copy.Status);
            return false;
        }

        return true;
    }

    private void Answer()
    {
        if (_answering.Count == 0) return;
        long now = Stopwatch.GetTimestamp();
        foreach (RingRequest request in _answering)
        {
            if (!HasCopied(request)) request.Status = BlkifStatus.Error;
            if (!request.Data.IsEmpty) _worker.ReturnBuffer(request.Data);
            request.Data = default;
            if (!request.IsRefused)
            {
                Statistics.Of(request.Operation).Record(
                    request.Status == BlkifStatus.Okay, request.SectorCount * BlockRequest.SectorSize,
                    now - request.StartedAt);
            }

            _ring.Put(new BlkifResponse(request.Wire.Id, request.Wire.AnsweredOperation, request.Status));
            _free.Push(request);
        }

        Statistics.InFlight -= _answering.Count;
        if (_ring.Publish()) _channel.Notify();
        foreach (RingRequest _ in _answering) _blkif.DropReference();
    }

    private void StartTaken()
    {
        foreach (RingRequest request in _starting)
        {
            if (HasCopied(request)) request.Start(_image);
            else Finish(request, BlkifStatus.Error);
        }
    }

    private void Continue()
    {
        if (_finished.Count > 0) _worker.Schedule(this);
        if (_isStopped || _isBroken) return;
        if (_waitingForBuffer is not null) _worker.ScheduleWhenBuffersReturn(this);
        else if (_free.Count == 0) return; // an answer frees a record and schedules the next turn
        else if (_ring.FinalCheck()) _worker.Schedule(this);
        else _port.Rearm();
    }
}
