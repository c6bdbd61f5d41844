using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;

namespace Ublkback.Linux.Files;

/// <summary>
/// Joins the fdatasyncs of one file on one worker: at most one runs and one waits, however many ask, since each runs on
/// one of the kernel's few threads for operations that block.
/// </summary>
/// <remarks>
/// Who asks while one runs is served by the next, never by the running one: that may have begun before the asker's
/// writes were done.
/// </remarks>
[DataPath]
public sealed class DataSyncQueue(FileDescriptor file) : RingOperation
{
    private readonly UringOperations _operations = Worker.Current.Operations;
    private List<IoOperation> _served = [];
    private List<IoOperation> _waiting = [];
    private bool _isRunning;

    /// <summary>Makes all that was written before durable; the result is 0 or −errno.</summary>
    public ValueTask<int> SyncAsync()
    {
        IoOperation turn = _operations.Rent();
        _waiting.Add(turn);
        if (!_isRunning) Start();
        return turn.Task;
    }

    /// <inheritdoc/>
    protected internal override void Completed(int result)
    {
        foreach (IoOperation turn in _served) turn.Completed(result);
        _served.Clear();
        _isRunning = false;
        if (_waiting.Count > 0) Start();
    }

    private void Start()
    {
        _isRunning = true;
        (_served, _waiting) = (_waiting, _served);
        _operations.StartDataSync(this, file);
    }
}
