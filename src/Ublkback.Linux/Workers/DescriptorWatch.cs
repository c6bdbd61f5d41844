namespace Ublkback.Linux.Workers;

/// <summary>Runs an action on a worker whenever a descriptor can be read. On the worker.</summary>
internal sealed class DescriptorWatch : RingOperation, IDisposable
{
    private readonly Worker _worker;
    private readonly int _descriptor;
    private readonly Action _onReadable;
    private bool _isDisposed;

    public DescriptorWatch(Worker worker, int descriptor, Action onReadable)
    {
        _worker = worker;
        _descriptor = descriptor;
        _onReadable = onReadable;
        worker.StartPoll(this, descriptor);
    }

    public void Dispose()
    {
        _isDisposed = true;
        _worker.Cancel(this);
    }

    // A descriptor that cannot be waited for is given up.
    protected internal override void Completed(int result)
    {
        if (_isDisposed || result < 0) return;
        _worker.Run(_onReadable);
        if (!_isDisposed) _worker.StartPoll(this, _descriptor);
    }
}
