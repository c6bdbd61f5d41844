using System.Runtime.CompilerServices;
using System.Threading.Tasks.Sources;

namespace Ublkback.Block;

/// <summary>
/// The result side of an async method that had to wait. See <see cref="RecyclingMethodBuilder{TResult}"/>.
/// </summary>
[DataPath]
internal class RecyclingBox<TResult> : IValueTaskSource<TResult>
{
    private ManualResetValueTaskSourceCore<TResult> _core;

    public short Version => _core.Version;

    public void SetResult(TResult result) => _core.SetResult(result);

    public void SetException(Exception exception) => _core.SetException(exception);

    ValueTaskSourceStatus IValueTaskSource<TResult>.GetStatus(short token) => _core.GetStatus(token);

    void IValueTaskSource<TResult>.OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _core.OnCompleted(continuation, state, token, ValueTaskSourceOnCompletedFlags.None);

    TResult IValueTaskSource<TResult>.GetResult(short token)
    {
        try
        {
            return _core.GetResult(token);
        }
        finally
        {
            _core.Reset();
            Recycle();
        }
    }

    protected virtual void Recycle()
    {
    }
}

/// <summary>A box with the state of one method. Each thread keeps its free ones in a chain.</summary>
internal sealed class RecyclingBox<TResult, TStateMachine> : RecyclingBox<TResult>
    where TStateMachine : IAsyncStateMachine
{
    [ThreadStatic]
    private static RecyclingBox<TResult, TStateMachine>? _free;

    private RecyclingBox<TResult, TStateMachine>? _next;

    private RecyclingBox() => MoveNext = Step;

    /// <summary>A field: the method changes its state in place.</summary>
    public TStateMachine? StateMachine;

    public Action MoveNext { get; }

    public static RecyclingBox<TResult, TStateMachine> Rent()
    {
        RecyclingBox<TResult, TStateMachine>? box = _free;
        // off the path: none is free, so there are more from now on
        if (box is null) return new RecyclingBox<TResult, TStateMachine>();
        _free = box._next;
        box._next = null;
        return box;
    }

    protected override void Recycle()
    {
        StateMachine = default;
        _next = _free;
        _free = this;
    }

    private void Step() => StateMachine!.MoveNext();
}
