using System.Runtime.CompilerServices;

namespace Ublkback.Block;

/// <summary>
/// Builds async methods whose state lives in recycled boxes. Put
/// <c>[AsyncMethodBuilder(typeof(RecyclingMethodBuilder&lt;&gt;))]</c> on an async method of the data path that returns
/// <see cref="ValueTask{TResult}"/>.
/// </summary>
/// <remarks>
/// The framework's pooling builder keeps one box per thread and core and allocates beyond it; here each thread keeps as
/// many boxes of a method as were ever under way at once, so the steady state allocates nothing at any depth. A method
/// must start and end on one thread, as everything on a worker does, and its result must be awaited exactly once.
/// Execution contexts do not flow.
/// </remarks>
[DataPath]
public struct RecyclingMethodBuilder<TResult>
{
    private RecyclingBox<TResult>? _box;
    private TResult _result;

    /// <summary>Makes a builder; called by the compiler.</summary>
#pragma warning disable CA1000 // the shape that the compiler asks of a method builder
    public static RecyclingMethodBuilder<TResult> Create() => default;
#pragma warning restore CA1000

    /// <summary>The task that the method returns to its caller.</summary>
    public readonly ValueTask<TResult> Task =>
        _box is null ? new ValueTask<TResult>(_result) : new ValueTask<TResult>(_box, _box.Version);

    /// <summary>Runs the method up to its first wait.</summary>
    public readonly void Start<TStateMachine>(ref TStateMachine stateMachine)
        where TStateMachine : IAsyncStateMachine => stateMachine.MoveNext();

    /// <summary>Not used by compilers that know method builders of this shape.</summary>
    public readonly void SetStateMachine(IAsyncStateMachine stateMachine)
    {
    }

    /// <summary>The method returned.</summary>
    public void SetResult(TResult result)
    {
        if (_box is null) _result = result;
        else _box.SetResult(result);
    }

    /// <summary>The method threw.</summary>
    public void SetException(Exception exception)
    {
        _box ??= new RecyclingBox<TResult>(); // off the path: an exception
        _box.SetException(exception);
    }

    /// <summary>The method waits.</summary>
    public void AwaitOnCompleted<TAwaiter, TStateMachine>(ref TAwaiter awaiter, ref TStateMachine stateMachine)
        where TAwaiter : INotifyCompletion
        where TStateMachine : IAsyncStateMachine =>
        awaiter.OnCompleted(Box(ref stateMachine));

    /// <summary>The method waits.</summary>
    public void AwaitUnsafeOnCompleted<TAwaiter, TStateMachine>(ref TAwaiter awaiter, ref TStateMachine stateMachine)
        where TAwaiter : ICriticalNotifyCompletion
        where TStateMachine : IAsyncStateMachine =>
        awaiter.UnsafeOnCompleted(Box(ref stateMachine));

    private Action Box<TStateMachine>(ref TStateMachine stateMachine)
        where TStateMachine : IAsyncStateMachine
    {
        if (_box is RecyclingBox<TResult, TStateMachine> box) return box.MoveNext;
        box = RecyclingBox<TResult, TStateMachine>.Rent();
        _box = box; // first: this builder is a part of the state machine that is copied next
        box.StateMachine = stateMachine;
        return box.MoveNext;
    }
}
