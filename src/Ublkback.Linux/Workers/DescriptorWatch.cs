namespace Ublkback.Linux.Workers;

/// <summary>Runs an action on a worker whenever a descriptor can be read. On the worker.</summary>
internal sealed class DescriptorWatch : RingOperation, IDisposable
{
    private readonly UringOperations _operations;
    private readonly int _descriptor;
    private readonly Action _onReadable;
    private bool _isDisposed;

    public DescriptorWatch(UringOperations operations, int descriptor, Action onReadable)
    {
        _operations = operations;
        _descriptor = descriptor;
        _onReadable = onReadable;
        operations.StartPoll(this, descriptor);
    }

    public void Dispose()
    {
        _isDisposed = true;
        _operations.Cancel(this);
    }

    // A descriptor that cannot be waited for is given up.
    protected internal override void Completed(int result)
    {
        if (_isDisposed || result < 0) return;
        _onReadable();
        if (!_isDisposed) _operations.StartPoll(this, _descriptor);
    }
}
