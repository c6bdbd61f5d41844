using Ublkback.Backend.Requests;
using Ublkback.Block;

namespace Ublkback.Backend.Rings;

/// <summary>
/// Requests of a ring that the storage failed, and that wait until it is repaired (<c>on-error=hold</c>). For the order
/// of the ring they are still below the image. On the ring's worker.
/// </summary>
[DataPath]
internal sealed class HeldRequests(bool holdsFailed)
{
    private readonly List<(RingRequest Request, BlockStatus Status)> _held = [];
    private bool _isClosed;

    /// <summary>Holds a request if its status and the disk's configuration call for that.</summary>
    public bool TryHold(RingRequest request, BlockStatus status)
    {
        if (_isClosed || !holdsFailed || status is BlockStatus.Okay or BlockStatus.Unsupported || request.HasFailedCopy)
            return false;
        _held.Add((request, status));
        return true;
    }

    /// <summary>Holds no further request.</summary>
    public void Close() => _isClosed = true;

    /// <summary>Returns all requests, each with the status that the storage gave, and holds them no longer.</summary>
    public (RingRequest Request, BlockStatus Status)[] TakeAll()
    {
        (RingRequest, BlockStatus)[] all = [.. _held]; // off the path: the storage was repaired
        _held.Clear();
        return all;
    }
}
