using System.Diagnostics;
using Ublkback.Backend.Report;
using Ublkback.Backend.Requests;
using Ublkback.Blkif;

namespace Ublkback.Backend.Rings;

/// <summary>
/// Takes requests from one ring into its preallocated records. Checks their slots, and passes valid ones to
/// <see cref="WaitingRequests"/> and the others to the finished requests. Requests that an earlier daemon left come
/// first. On the ring's worker.
/// </summary>
[DataPath]
internal sealed class RingIntake
{
    private static readonly long SizeCheckInterval = Stopwatch.Frequency; // a second

    private readonly IRingOwner _owner;
    private readonly ServedDisk _disk;
    private readonly BackRing _ring;
    private readonly QueueStatistics _statistics;
    private readonly RingIdle _idle;
    private readonly WaitingRequests _waiting;
    private readonly Queue<RingRequest> _finished;
    private readonly RecoveredRequests _recovered;
    private readonly RingRequest[] _records; // one for each entry of the journal
    private readonly Stack<RingRequest> _free = new();
    private long _sizeCheckedAt;
    private bool _isStopped; // takes nothing more
    private bool _isBroken; // the guest's indices make no sense

    public RingIntake(
        IRingOwner owner, ServedDisk disk, QueueParts parts, RingIdle idle, WaitingRequests waiting,
        Queue<RingRequest> finished, IRequestOwner server)
    {
        _owner = owner;
        _disk = disk;
        _ring = parts.Ring;
        _statistics = parts.Statistics;
        _idle = idle;
        _waiting = waiting;
        _finished = finished;
        _recovered = new RecoveredRequests(_ring);
        _records = new RingRequest[_ring.SlotCount];
        for (int entry = 0; entry < _records.Length; entry++)
        {
            _records[entry] = new RingRequest(server, disk, entry);
            if (!_recovered.Holds(entry)) _free.Push(_records[entry]);
        }
    }

    // Requests taken and not answered.
    private int InFlight => _ring.SlotCount - _free.Count - _recovered.Count;

    /// <summary>Starts to take requests.</summary>
    public void Start()
    {
        if (_recovered.Count == 0) _owner.OnRecovered();
    }

    /// <summary>
    /// Takes no further requests. Those in flight do not count as the cause if this process ends now.
    /// </summary>
    public void Stop()
    {
        _isStopped = true;
        foreach (RingRequest record in _records) _ring.Forgive(record.Entry);
    }

    /// <summary>
    /// Returns when the oldest request in flight was taken, in ticks of the stopwatch; null if there is none. Any
    /// thread.
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

    /// <summary>Takes as many requests as one turn may, unless earlier ones wait. Returns how many.</summary>
    public int Take()
    {
        if (_isStopped || _isBroken || _waiting.Count > 0) return 0;
        return _recovered.Count > 0 ? TakeRecovered() : TakeNew();
    }

    /// <summary>
    /// Adds a request that the guest made wrong to the finished ones. It never reaches the image.
    /// </summary>
    public void Refuse(RingRequest request, RequestFault fault)
    {
        request.IsRefused = true;
        _statistics.Refused++;
        _disk.Log.Refused(request.Wire, fault);
        Finish(request, fault == RequestFault.UnknownOperation ? BlkifStatus.NotSupported : BlkifStatus.Error);
    }

    /// <summary>Learns that a request is being answered, before its response is written.</summary>
    public void OnAnswered(RingRequest request)
    {
        if (!request.IsRecovered) return;
        request.IsRecovered = false;
        if (_recovered.CountAnswer()) _owner.OnRecovered();
    }

    /// <summary>Frees a request's record and memory.</summary>
    public void Free(RingRequest request)
    {
        Debug.Assert(request.StartedAt != 0, "a request is answered twice");
        _waiting.Free(request);
        request.StartedAt = 0;
        _free.Push(request);
    }

    /// <summary>Returns whether the ring has a request for the next turn. To be asked when none waits.</summary>
    public IntakeState FindState()
    {
        if (_isStopped || _isBroken) return IntakeState.Blocked;
        if (_recovered.Count > 0) return InFlight == 0 ? IntakeState.Ready : IntakeState.Blocked;
        if (_free.Count == 0) return IntakeState.Blocked;
        return _ring.CountWaiting() != 0 ? IntakeState.Ready : IntakeState.Empty;
    }

    private int TakeNew()
    {

        int count = _ring.CountWaiting();
        if (count < 0)
        {
            _isBroken = true;
            _disk.Log.BrokenRing();
            return 0;
        }

        if (count == 0) return 0;
        long now = Stopwatch.GetTimestamp();
        CheckSize(now);
        _idle.OnRequests(now);
        count = Math.Min(count, TurnLimits.MaxRequests);
        int taken = 0;
        while (taken < count && _free.TryPop(out RingRequest? request))
        {
            _ring.Take(request.Entry, out request.Wire);
            Accept(request, now);
            taken++;
        }

        return taken;
    }

    // Requests that an earlier daemon left.
    private int TakeRecovered()
    {
        long now = Stopwatch.GetTimestamp();
        int taken = 0;
        while (_recovered.TryNext(InFlight, out int entry))
        {
            RingRequest request = _records[entry];
            _ring.Retake(entry, out request.Wire);
            request.IsRecovered = true;
            if (_ring.Attempts(entry) > RecoveredRequests.MaxAttempts) _owner.Quarantine(request.Wire);
            Accept(request, now);
            taken++;
        }

        return taken;
    }

    private void Accept(RingRequest request, long now)
    {
        _owner.AddReference();
        _statistics.InFlight++;
        request.Reset(now);
        if (_owner.IsQuarantined)
        {
            Finish(request, BlkifStatus.Error);
            return;
        }

        RequestFault fault = RequestCheck.CheckSlot(request.Wire, _disk.Image.Geometry, out int segmentCount);
        if (fault != RequestFault.None)
        {
            Refuse(request, fault);
            return;
        }

        request.SegmentCount = segmentCount;
        _waiting.Add(request);
    }

    private void Finish(RingRequest request, BlkifStatus status)
    {
        request.Status = status;
        _finished.Enqueue(request);
    }

    // Like the kernel's backend, a disk in use notices that its file has grown.
    private void CheckSize(long now)
    {
        if (now - _sizeCheckedAt < SizeCheckInterval) return;
        _sizeCheckedAt = now;
        _owner.OnActive();
    }
}

/// <summary>Whether a ring has a request for the next turn.</summary>
internal enum IntakeState
{
    /// <summary>The ring takes no request until an answer brings a turn, or not at all any more.</summary>
    Blocked,

    /// <summary>A request can be taken.</summary>
    Ready,

    /// <summary>The ring is empty.</summary>
    Empty,
}
