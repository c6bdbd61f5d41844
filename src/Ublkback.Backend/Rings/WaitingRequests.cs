using Ublkback.Backend.Connections;
using Ublkback.Backend.Grants;
using Ublkback.Backend.Requests;
using Ublkback.Blkif;
using Ublkback.Linux.Workers;

namespace Ublkback.Backend.Rings;

/// <summary>
/// The requests of a ring that were taken and have not started: they get, in the order of the ring, their segments, the
/// mapping of their pages, their turn among overlapping ones, a buffer, and the data that they write. On the ring's
/// worker.
/// </summary>
[DataPath]
internal sealed class WaitingRequests(
    RingServer server, BlkifConnection blkif, Worker worker, GuestMemory memory, PersistentGrants? persistent,
    int slotCount)
{
    private readonly RequestOrder _order = new(slotCount);
    private readonly Queue<RingRequest> _waiting = new();
    private readonly RingBufferQuota _buffers = new(worker.Buffers, server, blkif.Domid);
    private readonly RingBufferQuota _descriptions = new(worker.Descriptions, server, blkif.Domid);
    private Action? _onMapped;
    private int _startedBytes; // in this turn

    /// <summary>Requests that wait.</summary>
    public int Count => _waiting.Count;

    /// <summary>Why the first of them could not start when that was last tried.</summary>
    public WaitReason WaitReason { get; private set; }

    /// <summary>Those that may start now, since the turn has begun.</summary>
    public List<RingRequest> Admitted { get; } = new(RingServer.MaxRequestsPerTurn);

    /// <summary>A turn begins.</summary>
    public void BeginTurn()
    {
        _startedBytes = 0;
        Admitted.Clear();
    }

    /// <summary>A request was taken.</summary>
    public void Add(RingRequest request)
    {
        if (request.Wire.Operation == BlkifOperation.Indirect) _ = TryFetchSegments(request);
        _waiting.Enqueue(request);
    }

    /// <summary>Gives back all that a request was given.</summary>
    public void Free(RingRequest request)
    {
        if (!request.Buffer.IsEmpty) _buffers.Return(request.Buffer);
        if (!request.SegmentPage.IsEmpty) _descriptions.Return(request.SegmentPage);
        request.Buffer = default;
        request.SegmentPage = default;
    }

    /// <summary>
    /// Takes the next of those that wait without starting it; false, and nothing is wanted any more, when there is
    /// none.
    /// </summary>
    public bool TryGiveUp(out RingRequest? request)
    {
        if (_waiting.TryDequeue(out request)) return true;
        _buffers.Withdraw();
        _descriptions.Withdraw();
        return false;
    }

    /// <summary>The image has ended a request that had started.</summary>
    public void OnHandled(RingRequest request) => _order.Remove(request);

    /// <summary>
    /// Gives what waits, in order, all that it needs to start, as far as that is possible now; true when anything was
    /// begun.
    /// </summary>
    public bool Admit()
    {
        bool hasBegun = false;
        WaitReason = WaitReason.None;
        while (_waiting.TryPeek(out RingRequest? request))
        {
            if (_startedBytes >= RingServer.MaxBytesPerTurn) WaitReason = WaitReason.NextTurn;
            else if (!HasSegments(request)) hasBegun |= WaitReason == WaitReason.NextTurn;
            else if (IsRefused(request)) continue;
            else if (!_order.MayStart(request)) WaitReason = WaitReason.Others;
            else if (IsBeingMapped(request)) WaitReason = WaitReason.Others;
            else if (!HasBuffer(request)) WaitReason = WaitReason.Others;
            if (WaitReason != WaitReason.None) break;

            _ = _waiting.Dequeue();
            if (request.Wire.InnerOperation != BlkifOperation.Read && request.ByteCount > 0) memory.FetchData(request);
            _startedBytes += request.ByteCount;
            _order.Add(request);
            Admitted.Add(request);
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
        RequestFault fault = request.HasFailedCopy
            ? RequestFault.NoDescriptors
            : RequestCheck.CheckRange(request.Wire, request.Segments, blkif.Image.Geometry, out length);
        request.IsChecked = true;
        request.Length = length;
        if (fault == RequestFault.None) return false;
        server.Refuse(_waiting.Dequeue(), fault);
        return true;
    }

    // Whether the request must wait until pages that its frontend keeps granted are mapped.
    private bool IsBeingMapped(RingRequest request)
    {
        if (persistent is null) return false;
        if (persistent.IsMapping) return true;
        if (request.IsMapped) return false;
        foreach (RingRequest waiting in _waiting) persistent.Want(waiting);
        if (!persistent.TryMapWanted(worker, _onMapped ??= OnMapped)) return false;
        blkif.AddReference(); // for the helper
        return true;
    }

    private void OnMapped()
    {
        server.OnMapped();
        blkif.DropReference();
    }

    private bool HasBuffer(RingRequest request)
    {
        if (request.ByteCount == 0) return true;
        if (!_buffers.TryRent(request.ByteCount, out Memory<byte> buffer)) return false;
        request.Buffer = buffer;
        return true;
    }
}
