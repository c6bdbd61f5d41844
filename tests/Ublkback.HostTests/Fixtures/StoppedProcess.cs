namespace Ublkback.HostTests.Fixtures;

/// <summary>
/// Stands for a process that is stopped before one of its operations on a pool, with all its threads, until it goes on.
/// Any thread.
/// </summary>
/// <param name="at">Before which operation, from 1; 0 for never.</param>
internal sealed class StoppedProcess(int at)
{
    private readonly TaskCompletionSource<string> _stopped = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly ManualResetEventSlim _goOn = new();
    private int _count;

    /// <summary>Ends, with the name of the operation, when it is stopped.</summary>
    public Task<string> Stopped => _stopped.Task;

    /// <summary>How many operations there were.</summary>
    public int Count => Volatile.Read(ref _count);

    /// <summary>Is called before each operation.</summary>
    public void Before(string operation)
    {
        int number = Interlocked.Increment(ref _count);
        if (at == 0 || number < at) return;
        _stopped.TrySetResult(operation);
        _goOn.Wait();
    }

    /// <summary>Lets it go on.</summary>
    public void GoOn() => _goOn.Set();
}
