using System.Diagnostics;

namespace Ublkback.Backend.Rings;

/// <summary>
/// How long a quiet ring is looked at before its worker sleeps: <see cref="MaxMicroseconds"/> if its guest has lately
/// come back sooner than that; each time it does not, half of it, down to nothing. So an idle ring costs nothing. Times
/// are in ticks of the stopwatch.
/// </summary>
[DataPath]
internal sealed class PollWindow
{
    /// <summary>The longest look; as long as Linux polls before it halts a processor (guest_halt_poll_ns).</summary>
    public const int MaxMicroseconds = 200;

    private static readonly long MaxTicks = Stopwatch.Frequency / 1_000_000 * MaxMicroseconds;
    private static readonly long MinTicks = MaxTicks / 8;

    private long _quietSince; // 0 while the ring is not quiet

    /// <summary>How long to look the next time; 0 is not at all.</summary>
    public long Ticks { get; private set; }

    /// <summary>The ring was found empty.</summary>
    public void OnQuiet(long now)
    {
        if (_quietSince == 0) _quietSince = now;
    }

    /// <summary>The guest has come back.</summary>
    public void OnBusy(long now)
    {
        if (_quietSince == 0) return;
        if (now - _quietSince <= MaxTicks) Ticks = MaxTicks;
        else if ((Ticks /= 2) < MinTicks) Ticks = 0;
        _quietSince = 0;
    }
}
