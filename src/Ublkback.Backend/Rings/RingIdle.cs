using System.Diagnostics;
using Ublkback.Backend.Report;
using Ublkback.Blkif;
using Ublkback.Linux.Workers;
using Ublkback.Xen;

namespace Ublkback.Backend.Rings;

/// <summary>
/// Has the server of a quiet ring get its next turn when there are requests: by looking for a little while, if that has
/// lately paid, then by the guest's notification. On the ring's worker.
/// </summary>
[DataPath]
internal sealed class RingIdle : IPolledWork
{
    private readonly IWork _server;
    private readonly Worker _worker;
    private readonly BackRing _ring;
    private readonly QueueStatistics _statistics;
    private readonly EventPort _port;
    private readonly PollWindow _window = new();
    private bool _isPolled;
    private bool _isStopped;

    public RingIdle(IWork server, Worker worker, BackRing ring, IEventChannel channel, QueueStatistics statistics)
    {
        _server = server;
        _worker = worker;
        _ring = ring;
        _statistics = statistics;
        _port = new EventPort(worker, channel, OnEvent);
    }

    /// <inheritdoc/>
    public bool HasWork => _isStopped || _ring.CountWaiting() != 0;

    /// <summary>Begins to listen.</summary>
    public void Start() => _port.Start();

    /// <summary>The ring has requests: it is not quiet.</summary>
    public void OnRequests(long now)
    {
        _window.OnBusy(now);
        _port.EventThrottle.OnRequest();
    }

    /// <summary>The ring is quiet: the server gets a turn when it no longer is.</summary>
    public void Await()
    {
        _window.OnQuiet(Stopwatch.GetTimestamp());
        if (_isPolled) return;
        _isPolled = _window.Ticks > 0;
        if (_isPolled) _worker.Poll(this, _window.Ticks);
        else Sleep();
    }

    /// <inheritdoc/>
    public void EndPolling(bool hasWork)
    {
        _isPolled = false;
        if (hasWork) _worker.Schedule(_server);
        else Sleep();
    }

    /// <summary>
    /// Never touches the ring again; the action runs when the kernel holds nothing of its event channel any more.
    /// </summary>
    public void Stop(Action onStopped)
    {
        _isStopped = true;
        _port.Stop(onStopped);
    }

    private void Sleep()
    {
        if (_ring.FinalCheck()) _worker.Schedule(_server);
        else _port.Rearm();
    }

    private void OnEvent()
    {
        _statistics.Events++;
        _worker.Schedule(_server);
    }
}
