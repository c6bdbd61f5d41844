using System.Threading.Tasks.Sources;

namespace Ublkback.Block;

/// <summary>
/// Those who wait on a loop until something has changed; they look again when they are woken. Allocates nothing in the
/// steady state. They go on from the loop itself: one who went on at once could wake the next, and so on without end.
/// </summary>
[DataPath]
public sealed class LoopCondition
{
    private readonly Queue<Waiter> _waiting = new();
    private readonly Stack<Waiter> _free = new();
    private readonly Action _wake;
    private bool _isWaking;

    /// <summary>Makes an empty list of them.</summary>
    public LoopCondition() => _wake = Wake;

    /// <summary>Ends soon after the next <see cref="WakeAll"/>. To be awaited once.</summary>
    public ValueTask WaitAsync()
    {
        Waiter waiter = _free.TryPop(out Waiter? free) ? free : new Waiter(this);
        _waiting.Enqueue(waiter);
        return waiter.Task;
    }

    /// <summary>Has all go on who wait.</summary>
    public void WakeAll()
    {
        if (_isWaking || _waiting.Count == 0) return;
        _isWaking = true;
        BlockLoop.Current.Post(_wake);
    }

    private void Wake()
    {
        _isWaking = false;
        for (int left = _waiting.Count; left > 0; left--) _waiting.Dequeue().Wake();
    }

    private sealed class Waiter(LoopCondition owner) : IValueTaskSource
    {
        private ManualResetValueTaskSourceCore<bool> _core;

        public ValueTask Task => new(this, _core.Version);

        public void Wake() => _core.SetResult(true);

        public ValueTaskSourceStatus GetStatus(short token) => _core.GetStatus(token);

        public void OnCompleted(
            Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
            _core.OnCompleted(continuation, state, token, ValueTaskSourceOnCompletedFlags.None);

        public void GetResult(short token)
        {
            _core.GetResult(token);
            _core.Reset();
            owner._free.Push(this);
        }
    }
}
