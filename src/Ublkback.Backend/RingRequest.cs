using System.Runtime.CompilerServices;
using Ublkback.Blkif;
using Ublkback.Block;

namespace Ublkback.Backend;

/// <summary>
/// One of a ring's preallocated request records: the copied slot and what has become of it. It is in exactly one place:
/// the ring's free records, waiting for a buffer, below the image, or finished and waiting to be answered.
/// </summary>
internal sealed class RingRequest : BlockRequest
{
    private readonly RingServer _server;
    private readonly Action _onCompleted;
    private ValueTaskAwaiter<BlockStatus> _awaiter;

    public RingRequest(RingServer server)
    {
        _server = server;
        _onCompleted = () => _server.OnHandled(this, _awaiter.GetResult());
    }

    /// <summary>The slot, as it was copied.</summary>
    public BlkifRequest Wire;

    /// <summary>When it was dequeued, in ticks of the stopwatch.</summary>
    public long StartedAt { get; set; }

    /// <summary>Whether the guest made it wrong, so that it never reaches the image.</summary>
    public bool IsRefused { get; set; }

    /// <summary>How it ended, once it has.</summary>
    public BlkifStatus Status { get; set; }

    /// <summary>First of its elements in the batch of grant copies.</summary>
    public int FirstCopy { get; set; }

    /// <summary>Number of its elements in the batch of grant copies.</summary>
    public int CopyCount { get; set; }

    /// <summary>Whether it is a flush with data: the write comes after the flush.</summary>
    public bool WritesAfterFlush => Wire.Operation == BlkifOperation.FlushDiskCache && SectorCount > 0;

    /// <summary>Hands the request to the image. The server learns of the end, perhaps before this returns.</summary>
    public void Start(IBlockImage image)
    {
#pragma warning disable CA2012 // awaited once, by hand: an async method per request would need a box per request
        _awaiter = image.HandleAsync(this).GetAwaiter();
#pragma warning restore CA2012
        if (_awaiter.IsCompleted)
        {
            _server.OnHandled(this, _awaiter.GetResult());
            return;
        }

        _awaiter.UnsafeOnCompleted(_onCompleted);
    }
}
