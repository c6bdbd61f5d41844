using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Threading.Tasks.Sources;
using Ublkback.Block;

namespace Ublkback.Plugins;

/// <summary>One request's time with a plugin. Recycled, unless the plugin was late.</summary>
internal sealed class GuardedCall : IValueTaskSource<BlockStatus>
{
    private readonly GuardedImage _guard;
    private readonly Action _onAnswered;
    private ManualResetValueTaskSourceCore<BlockStatus> _core;
    private ValueTaskAwaiter<BlockStatus> _awaiter;
    private BlockRequest _request = null!;
    private BlockRequest _copy = null!;
    private Memory<byte> _data; // the copy's; the plugin may have put something else there
    private bool _isAwaited;
    private bool _isAbandoned;

    public GuardedCall(GuardedImage guard)
    {
        _guard = guard;
        _onAnswered = OnAnswered;
        Place = new LinkedListNode<GuardedCall>(this);
    }

    /// <summary>Its place among the calls of its guard.</summary>
    public LinkedListNode<GuardedCall> Place { get; }

    /// <summary>From when its time counts, in ticks of the stopwatch.</summary>
    public long StartedAt { get; set; }

    public ValueTask<BlockStatus> Start(BlockRequest request)
    {
        _request = request;
        _copy = _guard.Copy(request);
        _data = _copy.Data;
        _core.Reset();
        _isAwaited = true;
        StartedAt = Stopwatch.GetTimestamp();
#pragma warning disable CA2012 // awaited once, by hand, so that the call can be recycled
        try
        {
            _awaiter = _guard.Pass(this, _copy).GetAwaiter();
        }
        catch (Exception failure)
        {
            _awaiter = new ValueTask<BlockStatus>(_guard.Blame(failure)).GetAwaiter();
        }
#pragma warning restore CA2012

        if (_awaiter.IsCompleted) OnAnswered();
        else _awaiter.UnsafeOnCompleted(_onAnswered);
        return new ValueTask<BlockStatus>(this, _core.Version);
    }

    /// <summary>The plugin's time is over.</summary>
    public void Abandon(TimeSpan timeout)
    {
        _guard.Blame($"has not answered a {_request.Operation} of {_request.SectorCount} sectors at "
            + $"{_request.Sector} for {timeout.TotalSeconds} s: it fails");
        _isAbandoned = true;
        _guard.Remove(this);
        _core.SetResult(BlockStatus.IoError);
    }

    public BlockStatus GetResult(short token)
    {
        BlockStatus status = _core.GetResult(token);
        if (!_isAbandoned) _guard.Return(this);
        return status;
    }

    public ValueTaskSourceStatus GetStatus(short token) => _core.GetStatus(token);

    public void OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _core.OnCompleted(continuation, state, token, ValueTaskSourceOnCompletedFlags.None);

    private void OnAnswered()
    {
        if (!_guard.IsOnLoop(otherwise: _onAnswered)) return;
        if (!_isAwaited)
        {
            _guard.Blame("answered a request twice");
            return;
        }

        _isAwaited = false;
        BlockStatus status = TakeStatus();
        if (_isAbandoned)
        {
            _guard.Blame($"answered {status}, too late");
            return; // the copy, which the plugin may still have, is never used again
        }

        if (_request.Operation == BlockOperation.Read && status == BlockStatus.Okay) _data.CopyTo(_request.Data);
        _guard.Return(_copy);
        _guard.Remove(this);
        _core.SetResult(status);
    }

    private BlockStatus TakeStatus()
    {
        try
        {
            BlockStatus status = _awaiter.GetResult();
            if (Enum.IsDefined(status)) return status;
            _guard.Blame($"answered {(int)status}, which is no status");
            return BlockStatus.IoError;
        }
        catch (Exception failure)
        {
            return _guard.Blame(failure);
        }
    }
}
