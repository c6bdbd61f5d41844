using System.Runtime.CompilerServices;

namespace Ublkback.Block;

/// <summary>Lets one at a time of those on a loop do something that takes more than a turn.</summary>
public sealed class LoopMutex
{
    private readonly LoopCondition _waiting = new();

    /// <summary>Whether somebody is inside.</summary>
    public bool IsBusy { get; private set; }

    /// <summary>Waits until nobody is inside, and is. The result means nothing.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<bool> EnterAsync()
    {
        while (IsBusy) await _waiting.WaitAsync();
        return IsBusy = true;
    }

    /// <summary>Leaves.</summary>
    public void Leave()
    {
        IsBusy = false;
        _waiting.WakeAll();
    }
}
