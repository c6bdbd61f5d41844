using System.Runtime.CompilerServices;
using Ublkback.Block;

namespace Ublkback.Images.Common;

/// <summary>
/// Tells when all requests have ended that may still use clusters which are no longer referred to: a request looks up
/// where a cluster is, then does its I/O there, and meanwhile the cluster must not become another's. On the image's
/// worker.
/// </summary>
[DataPath]
public sealed class RequestQuiescence
{
    private readonly int[] _underWay = new int[2];
    private readonly LoopCondition _ended = new();
    private readonly LoopMutex _turns = new();
    private readonly LoopMutex _alone = new();
    private readonly LoopCondition _goesOn = new();
    private int _current;

    /// <summary>A request begins; the result is for <see cref="End"/>.</summary>
    public int Begin()
    {
        _underWay[_current]++;
        return _current;
    }

    /// <summary>
    /// A request begins, once nothing is done for which there must be none; the result is for <see cref="End"/>.
    /// </summary>
    public ValueTask<int> BeginAsync() => _alone.IsBusy ? WaitAndBeginAsync() : new ValueTask<int>(Begin());

    /// <summary>A request begins, unless something is done for which there must be none.</summary>
    public bool TryBegin(out int epoch)
    {
        epoch = _alone.IsBusy ? 0 : Begin();
        return !_alone.IsBusy;
    }

    /// <summary>
    /// Does something while no request is under way. Those that come wait, if they begin by <see cref="BeginAsync"/>.
    /// </summary>
    public async Task<T> RunAloneAsync<T>(Func<Task<T>> action) // off the path: no request runs
    {
        ArgumentNullException.ThrowIfNull(action);
        await _alone.EnterAsync();
        try
        {
            await DrainAsync();
            return await action();
        }
        finally
        {
            _alone.Leave();
            _goesOn.WakeAll();
        }
    }

    /// <summary>A request has ended.</summary>
    public void End(int epoch)
    {
        if (--_underWay[epoch] == 0 && epoch != _current) _ended.WakeAll();
    }

    /// <summary>Waits until all requests have ended that are under way now.</summary>
    public async ValueTask DrainAsync() // on the path: qcow2 frees clusters after a commit
    {
        await _turns.EnterAsync();
        int old = _current;
        _current = 1 - old;
        while (_underWay[old] > 0) await _ended.WaitAsync();
        _turns.Leave();
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<int> WaitAndBeginAsync()
    {
        while (_alone.IsBusy) await _goesOn.WaitAsync();
        return Begin();
    }
}
