using Ublkback.Block;

namespace Ublkback.Backend.Requests;

/// <summary>The server of the ring from which a request came. On the ring's worker.</summary>
internal interface IRequestOwner
{
    /// <summary>Takes back a request that the image has completed.</summary>
    void OnHandled(RingRequest request, BlockStatus status);

    /// <summary>Learns that a flush has failed.</summary>
    void OnFlushFailed();
}
