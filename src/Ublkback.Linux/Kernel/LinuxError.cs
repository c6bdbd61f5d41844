using System.Runtime.InteropServices;
using Ublkback.Block;

namespace Ublkback.Linux.Kernel;

/// <summary>Error numbers of Linux (errno.h), their texts, and the one table from them to a request's status.</summary>
public static class LinuxError
{
    /// <summary>Operation not permitted.</summary>
    public const int NotPermitted = 1;

    /// <summary>No such file or directory.</summary>
    public const int NoEntry = 2;

    /// <summary>Interrupted system call.</summary>
    public const int Interrupted = 4;

    /// <summary>Try again.</summary>
    public const int TryAgain = 11;

    /// <summary>Permission denied.</summary>
    public const int AccessDenied = 13;

    /// <summary>Device or resource busy.</summary>
    public const int Busy = 16;

    /// <summary>File exists.</summary>
    public const int Exists = 17;

    /// <summary>No such device.</summary>
    public const int NoDevice = 19;

    /// <summary>Invalid argument.</summary>
    public const int InvalidArgument = 22;

    /// <summary>No space left on device.</summary>
    public const int NoSpace = 28;

    /// <summary>Read-only file system.</summary>
    public const int ReadOnlyFileSystem = 30;

    /// <summary>The time is over.</summary>
    public const int TimedOut = 62;

    /// <summary>Operation not supported.</summary>
    public const int NotSupported = 95;

    /// <summary>Cannot send after shutdown: of Ceph, that the cluster has shut this client out.</summary>
    public const int ShutOut = 108;

    /// <summary>Operation cancelled: of Ceph, also that what was to be so is not.</summary>
    public const int Cancelled = 125;

    private const int QuotaExceeded = 122;

    /// <summary>The status that a failed operation gives its request.</summary>
    public static BlockStatus ToStatus(int errno) => errno switch
    {
        0 => BlockStatus.Okay,
        NoSpace or QuotaExceeded => BlockStatus.NoSpace,
        NotSupported => BlockStatus.Unsupported,
        _ => BlockStatus.IoError,
    };

    /// <summary>The text of an error number, as <c>strerror</c> gives it.</summary>
    public static string Describe(int errno) => Marshal.GetPInvokeErrorMessage(errno);
}
