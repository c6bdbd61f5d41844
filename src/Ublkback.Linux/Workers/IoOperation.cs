using System.Threading.Tasks.Sources;

namespace Ublkback.Linux.Workers;

/// <summary>
/// A recycled operation whose result is awaited. It returns to the stack of free ones when the result is taken, so each
/// <see cref="Task"/> must be awaited exactly once, on the worker.
/// </summary>
[DataPath]
internal sealed class IoOperation(Stack<IoOperation> home) : RingOperation, IValueTaskSource<int>
{
    private ManualResetValueTaskSourceCore<int> _core;

    public ValueTask<int> Task => new(this, _core.Version);

    public ValueTaskSourceStatus GetStatus(short token) => _core.GetStatus(token);

    public void OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _core.OnCompleted(continuation, state, token, ValueTaskSourceOnCompletedFlags.None);

    public int GetResult(short token)
    {
        int result = _core.GetResult(token);
        _core.Reset();
        home.Push(this);
        return result;
    }

    protected internal override void Completed(int result) => _core.SetResult(result);
}
