using Ublkback.Backend.Grants;
using Ublkback.Backend.Report;
using Ublkback.Backend.Requests;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.Linux.Workers;

namespace Ublkback.Backend.Rings;

/// <summary>
/// The requests of a ring that were taken and have not started. In the order of the ring they get their segments, the
/// mapping of their pages, their turn among overlapping ones, a buffer, and the data that they write. On the ring's
/// worker.
/// </summary>
[DataPath]
internal sealed class WaitingRequests(
    IRingOwner owner, ServedDisk disk, QueueParts parts, GuestMemory memory, IWork server, Action onMapped)
{
    private readonly RequestOrder _order = new(parts.Ring.SlotCount);
    private readonly Queue<RingRequest> _waiting = new();
    private readonly RingBufferQuota _buffers = new(parts.Worker.Buffers, server, disk.Domid);
    private readonly RingBufferQuota _descriptions = new(parts.Worker.Descriptions, server, disk.Domid);
    private readonly PersistentGrants? _persistent = parts.Persistent;
    private Action? _onMapped;

    /// <summary>Number of waiting requests.</summary>
    public int Count => _waiting.Count;

    /// <summary>Why the first of them could not start when that was last tried.</summary>
    public WaitReason WaitReason { get; private set; }

    /// <summary>Bytes of the requests that may start, of this turn.</summary>
    public int StartedBytes { get; private set; }

    /// <summary>The requests that may start, of this turn.</summary>
    public List<RingRequest> Admitted { get; } = new(TurnLimits.MaxRequests);

    /// <summary>The requests that must be refused, of this turn.</summary>
    public List<(RingRequest Request, RequestFault Fault)> Refused { get; } = new(TurnLimits.MaxRequests);

    /// <summary>Begins a turn.</summary>
    public void BeginTurn()
    {
        StartedBytes = 0;
        Admitted.Clear();
        Refused.Clear();
    }

    /// <summary>Adds a request whose slot is valid.</summary>
    public void Add(RingRequest request)
    {
        // The ring may stand in the queue for a page of segments only while its first request needs it: others in the
        // queue would wait until the ones before it have started.
        if (request.Wire.Operation == BlkifOperation.Indirect && !TryFetchSegments(request) && _waiting.Count > 0)
            _descriptions.Withdraw();
        _waiting.Enqueue(request);
    }

    /// <summary>Frees the memory of a request.</summary>
    public void Free(RingRequest request)
    {
        if (!request.Buffer.IsEmpty) _buffers.Return(request.Buffer);
        if (!request.SegmentPage.IsEmpty) _descriptions.Return(request.SegmentPage);
        request.Buffer = default;
        request.SegmentPage = default;
    }

    /// <summary>
    /// Takes the next waiting request without starting it. False if there is none: the ring then wants no buffer.
    /// </summary>
    public bool TryGiveUp(out RingRequest? request)
    {
        if (_waiting.TryDequeue(out request)) return true;
        _buffers.Withdraw();
        _descriptions.Withdraw();
        return false;
    }

    /// <summary>Learns that the image has completed a request.</summary>
    public void OnHandled(RingRequest request) => _order.Remove(request);

    /// <summary>
    /// Moves waiting requests, in order, to <see cref="Admitted"/> or <see cref="Refused"/>, as far as they get what
    /// they need. True if grant copies may have been added for any.
    /// </summary>
    public bool Admit()
    {
        bool hasBegun = false;
        WaitReason = WaitReason.None;
        while (_waiting.TryPeek(out RingRequest? request))
        {
            if (StartedBytes >= TurnLimits.MaxBytes) WaitReason = WaitReason.NextTurn;
            else if (!HasSegments(request)) hasBegun |= WaitReason == WaitReason.NextTurn;
            else if (IsRefused(request)) continue;
            else if (!_order.MayStart(request)) WaitReason = WaitReason.Others;
            else if (IsBeingMapped(request)) WaitReason = WaitReason.Others;
            else if (!HasBuffer(request)) WaitReason = WaitReason.Others;
            if (WaitReason != WaitReason.None) break;

            _ = _waiting.Dequeue();
            if (request.Wire.InnerOperation != BlkifOperation.Read && request.ByteCount > 0) memory.FetchData(request);
            StartedBytes += request.ByteCount;
            _order.Add(request);
            Admitted.Add(request);
            hasBegun = true;
        }

        return hasBegun;
    }

    // An indirect request's segments come with a batch of copies. Without them, sets the reason to wait.
    private bool HasSegments(RingRequest request)
    {
        if (request.Wire.Operation != BlkifOperation.Indirect) return true;
        if (!request.SegmentPage.IsEmpty)
        {
            if (request.SegmentsCameWith != memory.BatchNumber) return true;
            WaitReason = WaitReason.NextTurn;
            return false;
        }

        WaitReason = TryFetchSegments(request) ? WaitReason.NextTurn : WaitReason.Others;
        return false;
    }

    private bool TryFetchSegments(RingRequest request)
    {
        if (!_descriptions.TryRent(BlkifConstants.PageSize, out Memory<byte> page)) return false;
        request.SegmentPage = page;
        request.SegmentsCameWith = memory.BatchNumber;
        memory.FetchSegments(request);
        return true;
    }

    private bool IsRefused(RingRequest request)
    {
        if (request.IsChecked) return false;
        long length = 0;
        ImageGeometry geometry = disk.Image.Geometry;
        RequestFault fault = request.HasFailedCopy
            ? RequestFault.NoDescriptors
            : RequestCheck.CheckRange(request.Wire, request.Segments, geometry, out length);
        request.IsChecked = true;
        request.Geometry = geometry;
        request.Length = length;
        if (fault == RequestFault.None) return false;
        Refused.Add((_waiting.Dequeue(), fault));
        return true;
    }

    // Whether the request must wait until pages that its frontend keeps granted are mapped.
    private bool IsBeingMapped(RingRequest request)
    {
        if (_persistent is null) return false;
        if (_persistent.IsMapping) return true;
        if (request.IsMapped) return false;
        foreach (RingRequest waiting in _waiting) _persistent.Want(waiting);
        if (!_persistent.TryMapWanted(parts.Worker, _onMapped ??= OnMapped)) return false;
        owner.AddReference(); // for the helper
        return true;
    }

    private void OnMapped()
    {
        onMapped();
        owner.DropReference();
    }

    private bool HasBuffer(RingRequest request)
    {
        if (request.ByteCount == 0) return true;
        if (!_buffers.TryRent(request.ByteCount, out Memory<byte> buffer)) return false;
        request.Buffer = buffer;
        return true;
    }
}
