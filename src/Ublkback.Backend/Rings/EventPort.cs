using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;
using Ublkback.Xen;

namespace Ublkback.Backend.Rings;

/// <summary>
/// Listens to an event channel on a worker: one read is under way at all times but while an event is being served. The
/// port stays masked until <see cref="Rearm"/>, so a guest that notifies without end costs one event a turn; and less
/// when its events bring nothing, see <see cref="EventThrottle"/>.
/// </summary>
[DataPath]
internal sealed class EventPort : RingOperation, IWork
{
    private readonly Worker _worker;
    private readonly IEventChannel _channel;
    private readonly Action _onEvent;
    private readonly Memory<byte> _event;
    private readonly UnmaskOperation _unmask;
    private Action? _onStopped;
    private bool _isServing;
    private bool _isHeldOff;

    public EventPort(Worker worker, IEventChannel channel, Action onEvent)
    {
        _worker = worker;
        _channel = channel;
        _onEvent = onEvent;
        _event = PinnedMemory.Allocate(channel.ReadLength);
        _unmask = new UnmaskOperation(this);
    }

    /// <summary>How long the port stays masked.</summary>
    public EventThrottle EventThrottle { get; } = new();

    bool IWork.IsScheduled { get; set; }

    /// <summary>Begins to listen.</summary>
    public void Start() => _worker.Operations.StartRead(this, _channel.Descriptor, _event);

    /// <summary>Ends the service of an event: unmasks the port and listens again, perhaps a little later.</summary>
    public void Rearm()
    {
        if (!_isServing || _isHeldOff || _onStopped is not null) return;
        if (EventThrottle.Ticks == 0)
        {
            Unmask();
            return;
        }

        _isHeldOff = true;
        _worker.ScheduleAfter(this, EventThrottle.Ticks);
    }

    void IWork.Run()
    {
        _isHeldOff = false;
        if (_onStopped is null) Unmask();
    }

    /// <summary>
    /// Ends listening; the action runs on the worker when the kernel holds nothing of the port any more.
    /// </summary>
    public void Stop(Action onStopped)
    {
        _onStopped = onStopped;
        if (IsUnderWay) _worker.Operations.Cancel(this);
        TellWhenStopped();
    }

    /// <inheritdoc/>
    protected override void Completed(int result)
    {
        if (_onStopped is not null)
        {
            TellWhenStopped();
            return;
        }

        if (result == -LinuxError.Interrupted)
        {
            Start();
            return;
        }

        if (result <= 0) throw new LinuxException(-result, "reading an event channel");
        _isServing = true;
        EventThrottle.OnEvent();
        _onEvent();
    }

    private void Unmask()
    {
        _isServing = false;
        if (_channel.MustUnmask) _unmask.Start(_worker, _channel.Descriptor, _event);
        Start();
    }

    private void TellWhenStopped()
    {
        if (!IsUnderWay && !_unmask.IsUnderWay) _onStopped?.Invoke();
    }

    private sealed class UnmaskOperation(EventPort port) : RingOperation
    {
        private readonly Memory<byte> _port = PinnedMemory.Allocate(sizeof(uint));

        public void Start(Worker worker, FileDescriptor descriptor, ReadOnlyMemory<byte> portNumber)
        {
            portNumber[..sizeof(uint)].CopyTo(_port);
            worker.Operations.StartWrite(this, descriptor, _port);
        }

        protected override void Completed(int result) => port.TellWhenStopped();
    }
}
