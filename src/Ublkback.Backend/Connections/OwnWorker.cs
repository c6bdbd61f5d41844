using System.Globalization;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;

namespace Ublkback.Backend.Connections;

/// <summary>
/// A worker for one image whose plugins may block it, and a watch that warns while they do. Any thread.
/// </summary>
internal sealed class OwnWorker : IAsyncDisposable
{
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);

    private readonly string _suspects;
    private readonly Action<string> _warn;
    private readonly Action<Worker> _onEnded;
    private readonly PeriodicTimer _timer = new(Interval);
    private readonly Task _watching;

    /// <summary>Starts a worker.</summary>
    /// <param name="name">The disk that it serves, for the thread's name.</param>
    /// <param name="suspects">The plugins that may block it, for the log.</param>
    /// <param name="warn">Takes a sentence for the log.</param>
    /// <param name="onEnded">Called when the worker has ended.</param>
    /// <exception cref="LinuxException">The kernel offers no io_uring.</exception>
    public OwnWorker(string name, string suspects, Action<string> warn, Action<Worker> onEnded)
    {
        _suspects = suspects;
        _warn = warn;
        _onEnded = onEnded;
        Worker = new Worker(name, failure => warn($"{suspects} failed: {failure.GetType().Name}: {failure.Message}"));
        _watching = WatchAsync();
    }

    /// <summary>The worker.</summary>
    public Worker Worker { get; }

    /// <summary>Ends the worker, once it is not blocked.</summary>
    public async ValueTask DisposeAsync()
    {
        await Task.Run(Worker.Dispose).ConfigureAwait(false);
        _timer.Dispose();
        await _watching.ConfigureAwait(false);
        _onEnded(Worker);
    }

    private async Task WatchAsync()
    {
        bool isBlocked = false;
        while (await _timer.WaitForNextTickAsync().ConfigureAwait(false))
        {
            TimeSpan busy = Worker.Busy;
            if (busy < Patience)
            {
                if (isBlocked) _warn($"{_suspects} no longer blocks the disk");
                isBlocked = false;
            }
            else if (!isBlocked)
            {
                isBlocked = true;
                _warn(string.Create(
                    CultureInfo.InvariantCulture,
                    $"{_suspects} has blocked the disk for {busy.TotalSeconds:F0} s: its code must not wait on the "
                    + $"disk's worker"));
            }
        }
    }
}
