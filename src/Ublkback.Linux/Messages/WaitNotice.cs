namespace Ublkback.Linux.Messages;

/// <summary>
/// Tells people what a command waits for, when that takes longer than <see cref="Patience"/>. Any thread.
/// </summary>
public sealed class WaitNotice : IDisposable
{
    /// <summary>How long nothing is said.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);

    private readonly Timer _timer;

    private WaitNotice(Action<string> sink, Func<string> what) =>
        _timer = new Timer(_ => sink($"waiting for {what()}"), null, Patience, Timeout.InfiniteTimeSpan);

    /// <summary>Takes sentences for people; null where nobody reads them, as in a daemon.</summary>
    public static Action<string>? Sink { get; set; }

    /// <summary>Begins a wait, which ends when the result is disposed; null where nobody is told.</summary>
    /// <param name="what">Says what is waited for.</param>
    public static WaitNotice? Begin(Func<string> what) => Sink is { } sink ? new WaitNotice(sink, what) : null;

    /// <inheritdoc/>
    public void Dispose() => _timer.Dispose();
}
