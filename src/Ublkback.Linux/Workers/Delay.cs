using System.Threading.Tasks.Sources;

namespace Ublkback.Linux.Workers;

/// <summary>
/// A recycled pause on a worker. It returns to the stack of free ones when its end is taken, so each <see cref="Task"/>
/// must be awaited exactly once, on the worker.
/// </summary>
internal sealed class Delay(Stack<Delay> home) : IWork, IValueTaskSource
{
    private ManualResetValueTaskSourceCore<bool> _core;

    public bool IsScheduled { get; set; }

    public ValueTask Task => new(this, _core.Version);

    public void Run() => _core.SetResult(true);

    public ValueTaskSourceStatus GetStatus(short token) => _core.GetStatus(token);

    public void OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _core.OnCompleted(continuation, state, token, ValueTaskSourceOnCompletedFlags.None);

    public void GetResult(short token)
    {
        _core.GetResult(token);
        _core.Reset();
        home.Push(this);
    }
}
