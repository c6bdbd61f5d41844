using Ublkback.Blkif;
using Ublkback.Block;

namespace Ublkback.Backend.Rings;

/// <summary>The connection to which a ring belongs. Its rings call it from several workers.</summary>
internal interface IRingOwner
{
    /// <summary>True if requests are answered with an error and never reach the image.</summary>
    bool IsQuarantined { get; }

    /// <summary>Takes a reference, which keeps the ring mapped.</summary>
    void AddReference();

    /// <summary>Drops a reference.</summary>
    void DropReference();

    /// <summary>Keeps all requests of the disk from its image, because daemons have crashed in this one.</summary>
    void Quarantine(in BlkifRequest request);

    /// <summary>Learns, at most once a second for each ring, that the guest uses the disk.</summary>
    void OnActive();

    /// <summary>Learns that a request is held since the storage failed it.</summary>
    void OnHeld(BlockStatus status);

    /// <summary>Learns that a flush has failed.</summary>
    void OnFlushFailed();

    /// <summary>Learns that a ring has answered all requests that an earlier daemon left. Once for each ring.</summary>
    void OnRecovered();
}
