using System.Collections.Concurrent;
using System.Diagnostics;
using Ublkback.Block;

namespace Ublkback.Hooks.Throttle;

/// <summary>The limits of one disk, or of all disks whose throttles name the same group. Any thread.</summary>
internal sealed class ThrottleGroup
{
    private static readonly ConcurrentDictionary<string, ThrottleGroup> Groups = new(StringComparer.Ordinal);

    private readonly Lock _settingsLock = new();
    private readonly RateLimit _requests = new();
    private readonly RateLimit _bytes = new();
    private long _iops;
    private long _bytesPerSecond;
    private TimeSpan _burst = TimeSpan.FromMilliseconds(10);

    /// <summary>The group of a name, made when it is new; null is a group of one's own.</summary>
    public static ThrottleGroup Find(string? name) =>
        name is null ? new ThrottleGroup() : Groups.GetOrAdd(name, _ => new ThrottleGroup());

    /// <summary>Sets the limits that the arguments name; the others stay.</summary>
    /// <exception cref="TargetException">An argument is not right; nothing was set.</exception>
    public void Set(HookTarget arguments)
    {
        lock (_settingsLock)
        {
            long iops = arguments.GetNumber("iops") ?? _iops;
            long bytesPerSecond = arguments.GetSize("bandwidth") ?? _bytesPerSecond;
            TimeSpan burst = arguments.GetDuration("burst") ?? _burst;
            (_iops, _bytesPerSecond, _burst) = (iops, bytesPerSecond, burst);
            _requests.Set(iops, (long)(iops * burst.TotalSeconds));
            _bytes.Set(bytesPerSecond, (long)(bytesPerSecond * burst.TotalSeconds));
        }
    }

    /// <summary>Takes a request's share; returns how long it has to wait.</summary>
    public TimeSpan Take(BlockRequest request)
    {
        long now = Stopwatch.GetTimestamp();
        long ticks = Math.Max(_requests.Take(1, now), _bytes.Take(request.Data.Length, now));
        return ticks == 0 ? TimeSpan.Zero : Stopwatch.GetElapsedTime(0, ticks);
    }
}
