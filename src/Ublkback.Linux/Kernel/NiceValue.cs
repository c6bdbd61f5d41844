using System.Runtime.InteropServices;

namespace Ublkback.Linux.Kernel;

/// <summary>The nice value of a thread (sched(7), "The nice value"): the lower, the more of a busy processor.</summary>
internal static partial class NiceValue
{
    private const int OfProcess = 0; // PRIO_PROCESS, sys/resource.h; Linux means a thread
    private const int CallingThread = 0;

    /// <summary>Sets the nice value of the calling thread, from -20 to 19.</summary>
    /// <returns>False if this user may not set it so low (RLIMIT_NICE).</returns>
    public static bool TrySet(int value) => setpriority(OfProcess, CallingThread, value) == 0;

    [LibraryImport("libc")]
    private static partial int setpriority(int which, int who, int value);
}
