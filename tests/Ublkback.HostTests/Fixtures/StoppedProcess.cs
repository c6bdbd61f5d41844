namespace Ublkback.HostTests.Fixtures;

/// <summary>
/// Stands for a process that is stopped before one of its operations on a pool, with all its threads, until it goes on.
/// Any thread.
/// </summary>
/// <param name="isAt">Whether it is stopped before an operation: its number, from 1, and its name.</param>
internal sealed class StoppedProcess(Func<int, string, bool> isAt)
{
    private readonly TaskCompletionSource<string> _stopped = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly ManualResetEventSlim _isRunning = new(true);
    private readonly Lock _gate = new();
    private bool _wentOn;
    private int _count;

    /// <summary>Ends, with the name of the operation, when it is stopped.</summary>
    public Task<string> Stopped => _stopped.Task;

    /// <summary>How many operations there were.</summary>
    public int Count => Volatile.Read(ref _count);

    /// <summary>Is called before each operation.</summary>
    public void Before(string operation)
    {
        lock (_gate)
        {
            if (isAt(++_count, operation) && !_wentOn) Stop(operation);
        }

        _isRunning.Wait();
    }

    /// <summary>Stops it now.</summary>
    public void Stop(string operation = "")
    {
        _isRunning.Reset();
        _stopped.TrySetResult(operation);
    }

    /// <summary>Lets it go on.</summary>
    public void GoOn()
    {
        lock (_gate) _wentOn = true;
        _isRunning.Set();
    }
}
