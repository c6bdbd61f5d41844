using System.Diagnostics;

namespace Ublkback.Backend.Rings;

/// <summary>
/// How long an event channel stays masked after an event: not at all, unless many events in a row have brought no
/// request; then a millisecond, twice as long after each further one, to <see cref="MaxMilliseconds"/>. The next
/// request ends that. So a guest that only notifies costs some thirty events a second (Xen's XSA-391 has the kernel's
/// backends do the like).
/// </summary>
[DataPath]
internal sealed class EventThrottle
{
    /// <summary>
    /// Events without a request that are served at once: more than a frontend's polling or ours can cause.
    /// </summary>
    public const int MaxVainEvents = 8;

    /// <summary>The longest that a port is kept masked.</summary>
    public const int MaxMilliseconds = 32;

    private static readonly long TicksPerMillisecond = Stopwatch.Frequency / 1000;

    private int _vainEvents;

    /// <summary>How long to wait, in ticks of the stopwatch.</summary>
    public long Ticks { get; private set; }

    /// <summary>An event has come.</summary>
    public void OnEvent()
    {
        if (++_vainEvents <= MaxVainEvents) return;
        Ticks = Math.Clamp(Ticks * 2, TicksPerMillisecond, TicksPerMillisecond * MaxMilliseconds);
    }

    /// <summary>The guest has made a request.</summary>
    public void OnRequest()
    {
        _vainEvents = 0;
        Ticks = 0;
    }
}
