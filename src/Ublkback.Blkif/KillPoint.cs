using System.Diagnostics;
using System.Globalization;

namespace Ublkback.Blkif;

/// <summary>
/// A named place in the code at which a test has the process die, as by kill -9. Only a debug build has them:
/// <c>UBLKBACK_KILL_AT=NAME:N</c> in its environment ends it when it reaches the place for the N-th time. Any thread.
/// </summary>
public static class KillPoint
{
    private static readonly string? Name;
    private static int _left;

#pragma warning disable CA1810 // both come from one variable
    static KillPoint()
#pragma warning restore CA1810
    {
        if (Environment.GetEnvironmentVariable("UBLKBACK_KILL_AT")?.Split(':') is not [string name, string count])
            return;
        Name = name;
        _left = int.Parse(count, CultureInfo.InvariantCulture);
    }

    /// <summary>The place.</summary>
    [Conditional("DEBUG")]
    public static void Reach(string name)
    {
        if (Name != name || Interlocked.Decrement(ref _left) != 0) return;
        using Process self = Process.GetCurrentProcess();
        self.Kill();
        Thread.Sleep(Timeout.Infinite);
    }

    /// <summary>The place at which a request for a sector starts, named after that: a poisonous request.</summary>
    [Conditional("DEBUG")]
    public static void ReachSector(ulong sector)
    {
        if (Name is not null) Reach(string.Create(CultureInfo.InvariantCulture, $"Poison{sector}"));
    }
}
