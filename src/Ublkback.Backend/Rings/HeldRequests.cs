using Ublkback.Backend.Connections;
using Ublkback.Backend.Requests;
using Ublkback.Block;

namespace Ublkback.Backend.Rings;

/// <summary>
/// Requests of a ring that the storage failed, and that wait for somebody to mend it (<c>on-error=hold</c>). For the
/// order of the ring they are still below the image. On the ring's worker.
/// </summary>
[DataPath]
internal sealed class HeldRequests(RingServer server, BlkifConnection blkif)
{
    private readonly List<(RingRequest Request, BlockStatus Status)> _held = [];
    private bool _isClosing;

    /// <summary>Whether a request is held, given how the image ended it.</summary>
    public bool TryHold(RingRequest request, BlockStatus status)
    {
        if (_isClosing || !blkif.HoldsFailed || status is BlockStatus.Okay or BlockStatus.Unsupported
            || request.HasFailedCopy)
            return false;
        _held.Add((request, status));
        blkif.OnHeld(status);
        return true;
    }

    /// <summary>Hands all to the image again.</summary>
    public void TryAgain()
    {
        (RingRequest Request, BlockStatus)[] again = [.. _held];
        _held.Clear();
        foreach ((RingRequest request, _) in again) request.Start(server.Image);
    }

    /// <summary>Ends all as the storage ended them, and holds none any more.</summary>
    public void FailAll()
    {
        _isClosing = true;
        foreach ((RingRequest request, BlockStatus status) in _held) server.OnEnded(request, status);
        _held.Clear();
    }

    /// <summary>Hands all over to those that are finished; nobody learns how they ended.</summary>
    public void GiveUp(Queue<RingRequest> finished)
    {
        foreach ((RingRequest request, _) in _held) finished.Enqueue(request);
        _held.Clear();
    }
}
