using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading.Tasks.Sources;
using Ublkback.Block;

namespace Ublkback.Rados.Bindings;

/// <summary>
/// An operation of librados or librbd that is under way, and its result: 0 or more, or a negative error number.
/// Recycled; to be awaited once. On one worker.
/// </summary>
public abstract unsafe class CephCall : IValueTaskSource<int>, IDisposable
{
    private readonly Action _end;
    private readonly GCHandle _self;
    private ManualResetValueTaskSourceCore<int> _core;
    private BlockLoop? _loop;
    private nint _completion;
    private int _result;

    private protected CephCall()
    {
        _end = End;
        _self = GCHandle.Alloc(this);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _self.Free();
        GC.SuppressFinalize(this);
    }

    ValueTaskSourceStatus IValueTaskSource<int>.GetStatus(short token) => _core.GetStatus(token);

    void IValueTaskSource<int>.OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _core.OnCompleted(continuation, state, token, ValueTaskSourceOnCompletedFlags.None);

    int IValueTaskSource<int>.GetResult(short token)
    {
        int result = _core.GetResult(token);
        _core.Reset();
        return result;
    }

    /// <summary>Makes a completion of the library.</summary>
    private protected abstract nint Create(nint argument, delegate* unmanaged[Cdecl]<nint, nint, void> complete);

    /// <summary>Asks a completion how it ended.</summary>
    private protected abstract int GetResult(nint completion);

    /// <summary>Gives a completion back.</summary>
    private protected abstract void Release(nint completion);

    /// <summary>The completion for an operation that is to be begun now.</summary>
    private protected nint Begin()
    {
        _loop = BlockLoop.Current;
        return _completion = Create(GCHandle.ToIntPtr(_self), &OnComplete);
    }

    /// <summary>What is awaited, once the library has said whether the operation was begun.</summary>
    private protected ValueTask<int> Begun(int result)
    {
        if (result >= 0) return new ValueTask<int>(this, _core.Version);
        // Nobody says that it has ended.
        Release(_completion);
        return new ValueTask<int>(result);
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static void OnComplete(nint completion, nint argument)
    {
        CephCall call = (CephCall)GCHandle.FromIntPtr(argument).Target!;
        call._result = call.GetResult(completion);
        call._loop!.Post(call._end);
    }

    private void End()
    {
        Release(_completion);
        _core.SetResult(_result);
    }
}
