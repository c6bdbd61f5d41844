using System.Diagnostics;
using Ublkback.Backend.Grants;
using Ublkback.Backend.Journals;
using Ublkback.Backend.Report;
using Ublkback.Backend.Requests;
using Ublkback.Backend.Rings;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.Linux.Workers;

namespace Ublkback.Backend.Connections;

/// <summary>The parts of a <see cref="BlkifConnection"/>, which takes over and disposes them.</summary>
/// <param name="Domid">The frontend's domain.</param>
/// <param name="Image">The image; the caller has taken a reference for the connection.</param>
/// <param name="Journal">The journal of the rings' requests.</param>
/// <param name="Requests">Room for the requests of its rings.</param>
/// <param name="Queues">The queues, at least one.</param>
/// <param name="Log">The log of the vbd.</param>
/// <param name="HoldsFailed">True if requests that the storage fails wait until it is repaired.</param>
/// <param name="OnActive">Called on a worker, at most once a second a ring, while the guest uses the disk.</param>
internal sealed record BlkifConnectionParts(
    ushort Domid, SharedImage Image, VbdJournal Journal, IDisposable Requests, IReadOnlyList<QueueParts> Queues,
    VbdLog Log, bool HoldsFailed, Action OnActive);

/// <summary>
/// One connected interface of a vbd: rings, event channels and image, kept by references. Its vbd holds the first
/// reference until <see cref="CloseAsync"/>. Each request in flight holds one, from being taken until its response is
/// published. When the last is dropped, the connection unbinds the event channels, unmaps the rings and releases the
/// image, once. A stalled storage keeps only the image: the rings are released after <see cref="DrainPatience"/>.
/// </summary>
internal sealed class BlkifConnection : ReferenceCounted, IRingOwner
{
    // A toolstack waits 10 s for a disk to go.
    private static readonly TimeSpan DrainPatience = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan DetachPatience = TimeSpan.FromSeconds(2);

    private readonly BlkifConnectionParts _parts;
    private readonly ServedDisk _disk;
    private readonly RingServer[] _servers;
    private readonly TaskCompletionSource _released = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _recovered = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile bool _isQuarantined;
    private volatile string? _failure;
    private int _isDetached;
    private int _recovering; // rings with requests of an earlier daemon
    private int _running; // rings that still take requests
    private int _listening; // rings that still listen to their event channels

    /// <summary>Creates a connection, which serves from <see cref="Start"/> on.</summary>
    public BlkifConnection(BlkifConnectionParts parts, PerWorker<GrantCopyBatch> batches)
    {
        _parts = parts;
        _disk = new ServedDisk(
            parts.Domid, parts.Image.Image, parts.Log, parts.Journal.HasLostWrites, parts.HoldsFailed);
        _servers = [.. parts.Queues.Select(queue => new RingServer(this, _disk, queue, batches))];
        _recovering = _servers.Length;
        _running = _servers.Length;
        _listening = _servers.Length;
    }

    /// <summary>The image.</summary>
    public IBlockImage Image => _disk.Image;

    /// <summary>The reason why requests are not served normally; null if they are. Any thread.</summary>
    public string? Trouble =>
        _isQuarantined
            ? "quarantined: daemons have died of a request"
            : _failure is string failure ? $"held: {failure}" : Image.Trouble;

    /// <summary>The loop of its first queue.</summary>
    public BlockLoop Loop => _parts.Queues[0].Worker;

    /// <summary>Number of queues.</summary>
    public int QueueCount => _servers.Length;

    /// <summary>Slots of each ring.</summary>
    public int SlotCount => _parts.Queues[0].Ring.SlotCount;

    /// <summary>Pages that stay mapped; null if the frontend does not keep them granted. Any thread.</summary>
    public int? PersistentPages => _parts.Queues[0].Persistent is null
        ? null
        : _parts.Queues.Sum(queue => queue.Persistent!.Count);

    /// <inheritdoc/>
    public bool IsQuarantined => _isQuarantined;

    /// <summary>True if a request was in flight at two crashes of daemons and is not answered yet.</summary>
    public bool HasSuspects => _parts.Queues.Any(queue => queue.Ring.FindPending().Any(
        entry => queue.Ring.Attempts(entry) >= RecoveredRequests.MaxAttemptsInCompany));

    /// <summary>Ends when the requests that an earlier daemon left are answered. Does not end before Start.</summary>
    public Task Recovered => _recovered.Task;

    /// <summary>Starts to serve.</summary>
    public void Start()
    {
        Report(DiskEvent.Connected);
        OnEachWorker(server => server.Start());
    }

    /// <summary>
    /// Takes no further requests and drops the vbd's reference. Ends when the requests in flight are answered and the
    /// rings are released, or after some seconds without those answers. A worker that a plugin blocks keeps the rings
    /// mapped, since it may touch them when it continues. Call it once.
    /// </summary>
    public async Task CloseAsync(bool isForSuccessor)
    {
        Report(isForSuccessor ? DiskEvent.Paused : DiskEvent.Closing);
        OnEachWorker(server =>
        {
            server.Stop(isForSuccessor);
            if (Interlocked.Decrement(ref _running) == 0) DropReference();
        });
        if (await Task.WhenAny(_released.Task, Task.Delay(DrainPatience)).ConfigureAwait(false) != _released.Task)
        {
            _disk.Log.LetGo();
            DetachRings();
            await Task.WhenAny(_released.Task, Task.Delay(DetachPatience)).ConfigureAwait(false);
        }

        if (!_released.Task.IsCompleted) _disk.Log.Stuck();
    }

    /// <summary>Retries the held requests. Any thread.</summary>
    public void Resume()
    {
        _failure = null;
        Report(DiskEvent.Resumed);
        OnEachWorker(server => server.Resume());
    }

    /// <summary>Returns the age of the oldest request in flight; null if there is none. Any thread.</summary>
    public TimeSpan? FindOldestAge()
    {
        long? oldest = _servers.Min(server => server.FindOldest());
        return oldest is null ? null : Stopwatch.GetElapsedTime(oldest.Value);
    }

    /// <inheritdoc/>
    public void OnActive() => _parts.OnActive();

    /// <inheritdoc/>
    public void OnHeld(BlockStatus status)
    {
        bool isFirst = _failure is null;
        _failure = status.ToString();
        if (isFirst) _disk.Log.Held(status);
    }

    /// <inheritdoc/>
    public void OnFlushFailed()
    {
        if (Image.HasLostWrites) _parts.Journal.HasLostWrites = true;
    }

    /// <inheritdoc/>
    public void OnRecovered()
    {
        if (Interlocked.Decrement(ref _recovering) == 0) _recovered.SetResult();
    }

    /// <inheritdoc/>
    public void Quarantine(in BlkifRequest request)
    {
        if (!_isQuarantined) _disk.Log.Quarantined(request);
        _isQuarantined = true;
    }

    /// <inheritdoc/>
    protected override void Release()
    {
        Report(DiskEvent.Closed, then: _parts.Image.DropReference);
        DetachRings();
    }

    private void Report(DiskEvent happened, Action? then = null) => _parts.Queues[0].Worker.Post(() =>
    {
        Image.OnEvent(happened);
        then?.Invoke();
    });

    private void DetachRings()
    {
        if (Interlocked.Exchange(ref _isDetached, 1) != 0) return;
        OnEachWorker(server => server.Detach(() =>
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
            Release(queue.Channel);
            Release(queue.Persistent);
            Release(queue.Mapping);
        }

        Release(_parts.Journal);
        Release(_parts.Requests);
        _released.SetResult();
    }

    // The other parts are released also if one cannot be: the vbd waits for the last of them.
    private void Release(IDisposable? part)
    {
        try
        {
            part?.Dispose();
        }
        catch (Exception failure)
        {
            _disk.Log.NotReleased($"{part!.GetType().Name}: {failure.Message}");
        }
    }
}
