using Ublkback.Linux.Messages;

namespace Ublkback.Parallax.Admin;

/// <summary>
/// The wait of one command for a process that is opening or closing a VDI. It has one time limit, and people are told
/// once, however often the command tries. For one thread at a time.
/// </summary>
internal sealed class VdiWait : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(50);

    private readonly long _began = Environment.TickCount64;
    private WaitNotice? _notice;

    /// <summary>True when the command should not try again.</summary>
    public bool IsOver => Environment.TickCount64 - _began > Patience.TotalMilliseconds;

    /// <summary>Waits a moment before the command tries again.</summary>
    public Task PauseAsync()
    {
        _notice ??= WaitNotice.Begin(() => "the process that is opening or closing the VDI");
        return Task.Delay(Pause);
    }

    /// <inheritdoc/>
    public void Dispose() => _notice?.Dispose();
}
