using System.Diagnostics;

namespace Ublkback.Hooks.Throttle;

/// <summary>
/// A rate that is kept exactly over time, with bursts: each event is given the time at which it may happen, in the
/// order of asking. Any number of threads, without locks.
/// </summary>
/// <remarks>
/// The generic cell rate algorithm: one number, the time at which all events so far would be over at the exact rate. An
/// event may come early by the burst.
/// </remarks>
internal sealed class RateLimit
{
    private long _ticksPerEvent; // in 1/Scale of the stopwatch's ticks; 0: no limit
    private long _burstTicks;
    private long _theoretical;

    // Bandwidth has many events in a tick.
    private const long Scale = 1 << 10;

    /// <summary>Sets the rate in events a second, 0 for no limit, and how many events may come at once.</summary>
    public void Set(long perSecond, long burst)
    {
        double ticks = perSecond == 0 ? 0 : (double)Stopwatch.Frequency * Scale / perSecond;
        Volatile.Write(ref _burstTicks, (long)(ticks * burst / Scale));
        Volatile.Write(ref _ticksPerEvent, Math.Max((long)ticks, perSecond == 0 ? 0 : 1));
    }

    /// <summary>Takes a number of events; returns how many ticks of the stopwatch to wait for them.</summary>
    public long Take(long events, long now)
    {
        long cost = (long)((Int128)events * Volatile.Read(ref _ticksPerEvent) / Scale);
        if (cost == 0) return 0;
        while (true)
        {
            long before = Volatile.Read(ref _theoretical);
            long start = Math.Max(before, now);
            if (Interlocked.CompareExchange(ref _theoretical, start + cost, before) != before) continue;
            return Math.Max(0, start - now - Volatile.Read(ref _burstTicks));
        }
    }
}
