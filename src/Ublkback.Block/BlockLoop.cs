namespace Ublkback.Block;

/// <summary>
/// The run loop that calls a hook or an image: one thread, on which all requests of a ring begin and end. What a hook
/// wants to do later, or when something happens, it has done here.
/// </summary>
public abstract class BlockLoop
{
    [ThreadStatic]
    private static BlockLoop? _current;

    /// <summary>The loop whose thread this is.</summary>
    /// <exception cref="InvalidOperationException">The calling thread is not a loop's.</exception>
    public static BlockLoop Current => _current ?? throw new InvalidOperationException("this code runs on workers only");

    /// <summary>Runs an action on the loop soon. Any thread.</summary>
    public abstract void Post(Action action);

    /// <summary>Ends after a time, on the loop. To be awaited there, once.</summary>
    public abstract ValueTask DelayAsync(TimeSpan time);

    /// <summary>
    /// Runs an action on the loop when a file descriptor can be read, again and again until the result is disposed there.
    /// </summary>
    public abstract IDisposable Watch(int descriptor, Action onReadable);

    /// <summary>Makes this the loop of the calling thread.</summary>
    protected void MakeCurrent() => _current = this;
}
