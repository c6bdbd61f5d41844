namespace Ublkback.Block;

/// <summary>
/// The run loop that calls a hook or an image: one thread, on which all requests of a ring begin and end. What a hook
/// wants to do later, or when something happens, it has done here.
/// </summary>
/// <remarks>
/// It is the loop's synchronization context too: an async method that awaits anything here goes on here, unless it says
/// <c>ConfigureAwait(false)</c>.
/// </remarks>
public abstract class BlockLoop
{
    [ThreadStatic]
    private static BlockLoop? _current;

    /// <summary>The loop whose thread this is.</summary>
    /// <exception cref="InvalidOperationException">The calling thread is not a loop's.</exception>
    public static BlockLoop Current =>
        _current ?? throw new InvalidOperationException("this code runs on workers only");

    /// <summary>Whether the calling thread is a loop's. Any thread.</summary>
    public static bool IsAnyCurrent => _current is not null;

    /// <summary>Whether the calling thread is this loop's. Any thread.</summary>
    public bool IsCurrent => _current == this;

    /// <summary>Runs an action on the loop soon. Any thread.</summary>
    public abstract void Post(Action action);

    /// <summary>Runs something on the loop to its end, and gives what it returns or throws. Any thread.</summary>
    public Task<T> InvokeAsync<T>(Func<Task<T>> action)
    {
        TaskCompletionSource<T> done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        Post(async () =>
        {
            try
            {
                done.SetResult(await action());
            }
            catch (Exception failure)
            {
                done.SetException(failure);
            }
        });
        return done.Task;
    }

    /// <summary>Runs something on the loop to its end, and throws what it throws. Any thread.</summary>
    public Task InvokeAsync(Func<Task> action) => InvokeAsync<bool>(async () =>
    {
        await action();
        return true;
    });

    /// <summary>Ends after a time, on the loop. To be awaited there, once.</summary>
    public abstract ValueTask DelayAsync(TimeSpan time);

    /// <summary>
    /// Runs an action on the loop when a file descriptor can be read, again and again until the result is disposed
    /// there.
    /// </summary>
    public abstract IDisposable Watch(int descriptor, Action onReadable);

    /// <summary>Makes this the loop of the calling thread.</summary>
    protected void MakeCurrent()
    {
        _current = this;
        SynchronizationContext.SetSynchronizationContext(new LoopContext(this));
    }

    private sealed class LoopContext(BlockLoop loop) : SynchronizationContext
    {
        public override void Post(SendOrPostCallback callback, object? state) => loop.Post(() => callback(state));

        public override SynchronizationContext CreateCopy() => this;
    }
}
