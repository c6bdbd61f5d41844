using System.Diagnostics;
using Ublkback.Backend.Grants;
using Ublkback.Backend.Journals;
using Ublkback.Backend.Report;
using Ublkback.Backend.Requests;
using Ublkback.Backend.Rings;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.Linux.Workers;
using Ublkback.Xen;

namespace Ublkback.Backend.Connections;

/// <summary>What a <see cref="BlkifConnection"/> is made of; it takes over what must be disposed.</summary>
/// <param name="Domid">The frontend's domain.</param>
/// <param name="Image">The image; the caller has taken a reference for the blkif.</param>
/// <param name="Journal">What keeps what is in hand.</param>
/// <param name="Requests">Room for the requests of its rings.</param>
/// <param name="Queues">The queues, at least one.</param>
/// <param name="Log">Where mishaps go.</param>
/// <param name="HoldsFailed">Whether requests that the storage fails wait until it is mended.</param>
/// <param name="OnActive">Called on a worker now and then while the guest uses the disk.</param>
internal sealed record BlkifConnectionParts(
    ushort Domid, SharedImage Image, VbdJournal Journal, IDisposable Requests, IReadOnlyList<QueueParts> Queues,
    VbdLog Log,
    bool HoldsFailed, Action OnActive);

/// <summary>What serves one queue.</summary>
/// <param name="Worker">Serves the ring.</param>
/// <param name="Mapping">The ring's pages.</param>
/// <param name="Channel">The ring's event channel.</param>
/// <param name="Ring">Our end of the ring in these pages.</param>
/// <param name="Persistent">The pages that the frontend keeps granted; null when it does not.</param>
/// <param name="Statistics">Where the figures go.</param>
internal sealed record QueueParts(
    Worker Worker, IGrantMapping Mapping, IEventChannel Channel, BackRing Ring, PersistentGrants? Persistent,
    QueueStatistics Statistics);

/// <summary>
/// One connected interface of a vbd: rings, event channels and image, kept by references. Making it takes one, which
/// its vbd drops in <see cref="CloseAsync"/>; every request in flight holds one, from being dequeued until its response
/// is published. When the last is dropped the event channels are unbound, the rings unmapped and the image let go,
/// once. A storage that has stalled keeps only the image: the rings are let go of after a while.
/// </summary>
internal sealed class BlkifConnection : ReferenceCounted
{
    // A toolstack waits 10 s for a disk to go.
    private static readonly TimeSpan DrainPatience = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan LetGoPatience = TimeSpan.FromSeconds(2);

    private readonly BlkifConnectionParts _parts;
    private readonly RingServer[] _servers;
    private readonly TaskCompletionSource _released = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _recovered = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile bool _isQuarantined;
    private volatile string? _failure;
    private int _isLetGo;
    private int _recovering; // rings with requests of a process before us
    private int _running; // rings that still take requests
    private int _listening; // rings whose event channels are listened to

    /// <summary>Makes an interface that does not serve yet.</summary>
    public BlkifConnection(BlkifConnectionParts parts, PerWorker<GrantCopyBatch> batches)
    {
        _parts = parts;
        HasLostWrites = parts.Journal.HasLostWrites;
        _servers = [.. parts.Queues.Select(queue => new RingServer(this, queue, batches))];
        _recovering = _servers.Length;
        _running = _servers.Length;
        _listening = _servers.Length;
    }

    /// <summary>The frontend's domain.</summary>
    public ushort Domid => _parts.Domid;

    /// <summary>The image.</summary>
    public IBlockImage Image => _parts.Image.Image;

    /// <summary>Where mishaps go.</summary>
    public VbdLog Log => _parts.Log;

    /// <summary>Whether requests that the storage fails wait until it is mended.</summary>
    public bool HoldsFailed => _parts.HoldsFailed;

    /// <summary>Why requests are not served as they should be; null when they are. Any thread.</summary>
    public string? Trouble =>
        _isQuarantined
            ? "quarantined: daemons have died of a request"
            : _failure is string failure ? $"held: {failure}" : Image.Trouble;

    /// <summary>Called on a worker now and then while the guest uses the disk.</summary>
    public Action OnActive => _parts.OnActive;

    /// <summary>
    /// Whether a process before us lost writes that were answered. The image, opened anew, does not know that, so no
    /// flush reaches it.
    /// </summary>
    public bool HasLostWrites { get; }

    /// <summary>The loop of its first queue.</summary>
    public BlockLoop Loop => _parts.Queues[0].Worker;

    /// <summary>Number of queues.</summary>
    public int QueueCount => _servers.Length;

    /// <summary>Slots of each ring.</summary>
    public int SlotCount => _parts.Queues[0].Ring.SlotCount;

    /// <summary>Pages that are kept mapped; null when the frontend does not keep them granted. Any thread.</summary>
    public int? PersistentPages => _parts.Queues[0].Persistent is null
        ? null
        : _parts.Queues.Sum(queue => queue.Persistent!.Count);

    /// <summary>
    /// Whether requests are answered with an error and never reach the image, because daemons have died of one.
    /// </summary>
    public bool IsQuarantined => _isQuarantined;

    /// <summary>Whether requests are in hand that were so at two deaths.</summary>
    public bool HasSuspects => _parts.Queues.Any(queue => queue.Ring.FindPending().Any(
        entry => queue.Ring.Attempts(entry) >= RecoveredRequests.MaxAttemptsInCompany));

    /// <summary>Ends when all that a process before us had in hand is answered, once serving has begun.</summary>
    public Task Recovered => _recovered.Task;

    /// <summary>Begins to serve.</summary>
    public void Start()
    {
        Tell(DiskEvent.Connected);
        OnEachWorker(server => server.Start());
    }

    /// <summary>
    /// Takes no further requests and drops the owner's reference; ends when those in flight are answered and the rings
    /// are released, or after some seconds without those answers. A worker that a plugin blocks keeps the rings mapped,
    /// since it may touch them when it goes on. Once.
    /// </summary>
    public async Task CloseAsync(bool isForSuccessor)
    {
        Tell(isForSuccessor ? DiskEvent.Paused : DiskEvent.Closing);
        OnEachWorker(server =>
        {
            server.Stop(isForSuccessor);
            if (Interlocked.Decrement(ref _running) == 0) DropReference();
        });
        if (await Task.WhenAny(_released.Task, Task.Delay(DrainPatience)).ConfigureAwait(false) != _released.Task)
        {
            Log.LetGo();
            LetRingsGo();
            await Task.WhenAny(_released.Task, Task.Delay(LetGoPatience)).ConfigureAwait(false);
        }

        if (!_released.Task.IsCompleted) Log.Stuck();
    }

    /// <summary>Tries again what is held because its storage failed. Any thread.</summary>
    public void Resume()
    {
        _failure = null;
        Tell(DiskEvent.Resumed);
        OnEachWorker(server => server.Resume());
    }

    /// <summary>How long the oldest request in hand has been so; null: there is none. Any thread.</summary>
    public TimeSpan? FindOldestAge()
    {
        long? oldest = _servers.Min(server => server.FindOldest());
        return oldest is null ? null : Stopwatch.GetElapsedTime(oldest.Value);
    }

    /// <summary>A request is held since its storage failed.</summary>
    public void OnHeld(BlockStatus status)
    {
        if (_failure is null) Log.Held(status);
        _failure = status.ToString();
    }

    /// <summary>A flush has failed.</summary>
    public void OnFlushFailed()
    {
        if (Image.HasLostWrites) _parts.Journal.HasLostWrites = true;
    }

    /// <summary>A ring has answered all that a process before us had in hand.</summary>
    public void OnRecovered()
    {
        if (Interlocked.Decrement(ref _recovering) == 0) _recovered.SetResult();
    }

    /// <summary>Daemons have died of a request: none of this disk reaches its image any more.</summary>
    public void Quarantine(in BlkifRequest request)
    {
        if (!_isQuarantined) Log.Quarantined(request);
        _isQuarantined = true;
    }

    /// <inheritdoc/>
    protected override void Release()
    {
        Tell(DiskEvent.Closed, then: _parts.Image.DropReference);
        LetRingsGo();
    }

    private void Tell(DiskEvent happened, Action? then = null) => _parts.Queues[0].Worker.Post(() =>
    {
        Image.OnEvent(happened);
        then?.Invoke();
    });

    private void LetRingsGo()
    {
        if (Interlocked.Exchange(ref _isLetGo, 1) != 0) return;
        OnEachWorker(server => server.LetGo(() =>
        {
            if (Interlocked.Decrement(ref _listening) == 0) _ = Task.Run(ReleaseRings);
        }));
    }

    private void OnEachWorker(Action<RingServer> action)
    {
        for (int i = 0; i < _servers.Length; i++)
        {
            RingServer server = _servers[i];
            _parts.Queues[i].Worker.Post(() => action(server));
        }
    }

    private void ReleaseRings()
    {
        foreach (QueueParts queue in _parts.Queues)
        {
            queue.Channel.Dispose();
            queue.Persistent?.Dispose();
            queue.Mapping.Dispose();
        }

        _parts.Journal.Dispose();
        _parts.Requests.Dispose();
        _released.SetResult();
    }
}
