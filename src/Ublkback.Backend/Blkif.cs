using Ublkback.Blkif;
using Ublkback.Linux;
using Ublkback.Xen;

namespace Ublkback.Backend;

/// <summary>What a <see cref="Blkif"/> is made of; it takes over what must be disposed.</summary>
/// <param name="Domid">The frontend's domain.</param>
/// <param name="Hypervisor">For grant copies.</param>
/// <param name="Worker">Serves the ring.</param>
/// <param name="Image">The image; the caller has taken a reference for the blkif.</param>
/// <param name="Mapping">The ring's pages.</param>
/// <param name="Channel">The ring's event channel.</param>
/// <param name="Ring">Our end of the ring in these pages.</param>
/// <param name="Statistics">Where the figures go.</param>
/// <param name="Log">Where mishaps go.</param>
public sealed record BlkifParts(
    ushort Domid, IHypervisor Hypervisor, Worker Worker, SharedImage Image, IGrantMapping Mapping,
    IEventChannel Channel, BackRing Ring, VbdStatistics Statistics, VbdLog Log);

/// <summary>
/// One connected interface of a vbd: ring, event channel and image, kept by references. Making it takes one, which its
/// vbd drops in <see cref="CloseAsync"/>; every request in flight holds one, from being dequeued until its response is
/// published. When the last is dropped the event channel is unbound, the ring unmapped and the image let go, once.
/// </summary>
public sealed class Blkif : ReferenceCounted
{
    private readonly BlkifParts _parts;
    private readonly RingServer _server;
    private readonly TaskCompletionSource _released = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Makes an interface that does not serve yet.</summary>
    public Blkif(BlkifParts parts)
    {
        _parts = parts;
        _server = new RingServer(this, parts.Worker, parts.Hypervisor, parts.Image.Image, parts.Ring, parts.Channel);
    }

    /// <summary>The frontend's domain.</summary>
    public ushort Domid => _parts.Domid;

    /// <summary>Where the figures go.</summary>
    public VbdStatistics Statistics => _parts.Statistics;

    /// <summary>Where mishaps go.</summary>
    public VbdLog Log => _parts.Log;

    /// <summary>Slots of the ring.</summary>
    public int SlotCount => _parts.Ring.SlotCount;

    /// <summary>Responses published since the ring was made; for the successor, once the interface is released.</summary>
    public uint ResponseProducer => _parts.Ring.ResponseProducer;

    /// <summary>Begins to serve.</summary>
    public void Start() => _parts.Worker.Post(_server.Start);

    /// <summary>
    /// Takes no further requests and drops the owner's reference; ends when those in flight are answered and all is
    /// released. Once.
    /// </summary>
    public Task CloseAsync()
    {
        _parts.Worker.Post(() =>
        {
            _server.Stop();
            DropReference();
        });
        return _released.Task;
    }

    /// <inheritdoc/>
    protected override void Release() => _server.StopListening(() => Task.Run(ReleaseParts));

    private void ReleaseParts()
    {
        _parts.Channel.Dispose();
        _parts.Mapping.Dispose();
        _parts.Image.DropReference();
        _released.SetResult();
    }
}
