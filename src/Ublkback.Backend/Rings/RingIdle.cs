using System.Diagnostics;
using Ublkback.Backend.Report;
using Ublkback.Blkif;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;
using Ublkback.Xen;

namespace Ublkback.Backend.Rings;

/// <summary>
/// Schedules the next turn of an idle ring. Polls briefly if polling succeeded lately; otherwise waits for an event. On
/// the ring's worker.
/// </summary>
/// <remarks>
/// One read of the event channel is in flight, except while an event is served. The port stays masked until the ring is
/// idle again, so a guest that notifies without end costs one event a turn, and less when its events bring no request
/// (<see cref="EventThrottle"/>).
/// </remarks>
[DataPath]
internal sealed class RingIdle : RingOperation, IPolledWork, IWork
{
    private readonly IWork _server;
    private readonly Worker _worker;
    private readonly BackRing _ring;
    private readonly IEventChannel _channel;
    private readonly QueueStatistics _statistics;
    private readonly PollWindow _window = new();
    private readonly EventThrottle _throttle = new();
    private readonly Memory<byte> _event;
    private readonly UnmaskOperation _unmask;
    private Action? _onStopped;
    private bool _isPolled;
    private bool _isServing; // an event was read and the port is masked
    private bool _isThrottled;

    public RingIdle(IWork server, QueueParts parts)
    {
        _server = server;
        _worker = parts.Worker;
        _ring = parts.Ring;
        _channel = parts.Channel;
        _statistics = parts.Statistics;
        _event = PinnedMemory.Allocate(_channel.ReadLength);
        _unmask = new UnmaskOperation(this);
    }

    /// <inheritdoc/>
    public bool HasWork => _onStopped is not null || _ring.CountWaiting() != 0;

    bool IWork.IsScheduled { get; set; }

    /// <summary>Starts to listen.</summary>
    public void Start() => _worker.Operations.StartRead(this, _channel.Descriptor, _event);

    /// <summary>Learns that the ring has requests.</summary>
    public void OnRequests(long now)
    {
        _window.OnBusy(now);
        _throttle.OnRequest();
    }

    /// <summary>Gives the server a turn when the ring, which is empty, has requests.</summary>
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
    /// Never touches the ring again. The action runs when the kernel no longer uses the event channel.
    /// </summary>
    public void Stop(Action onStopped)
    {
        _onStopped = onStopped;
        if (IsUnderWay) _worker.Operations.Cancel(this);
        ReportIfStopped();
    }

    // The throttle's wait is over.
    void IWork.Run()
    {
        _isThrottled = false;
        if (_onStopped is null) Unmask();
    }

    /// <inheritdoc/>
    protected override void Completed(int result)
    {
        if (_onStopped is not null)
        {
            ReportIfStopped();
            return;
        }

        if (result == -LinuxError.Interrupted)
        {
            Start();
            return;
        }

        if (result <= 0) throw new LinuxException(-result, "reading an event channel");
        _isServing = true;
        _throttle.OnEvent();
        _statistics.Events++;
        _worker.Schedule(_server);
    }

    private void Sleep()
    {
        if (_ring.FinalCheck()) _worker.Schedule(_server);
        else Rearm();
    }

    // Listens again, unless it does so already.
    private void Rearm()
    {
        if (!_isServing || _isThrottled || _onStopped is not null) return;
        if (_throttle.Ticks == 0)
        {
            Unmask();
            return;
        }

        _isThrottled = true;
        _worker.ScheduleAfter(this, _throttle.Ticks);
    }

    private void Unmask()
    {
        _isServing = false;
        if (_channel.MustUnmask) _unmask.Start(_worker, _channel.Descriptor, _event);
        Start();
    }

    private void ReportIfStopped()
    {
        if (!IsUnderWay && !_unmask.IsUnderWay) _onStopped?.Invoke();
    }

    private sealed class UnmaskOperation(RingIdle idle) : RingOperation
    {
        private readonly Memory<byte> _port = PinnedMemory.Allocate(sizeof(uint));

        public void Start(Worker worker, FileDescriptor descriptor, ReadOnlyMemory<byte> portNumber)
        {
            portNumber[..sizeof(uint)].CopyTo(_port);
            worker.Operations.StartWrite(this, descriptor, _port);
        }

        protected override void Completed(int result) => idle.ReportIfStopped();
    }
}
