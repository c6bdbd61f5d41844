namespace Ublkback.Linux.Kernel;

/// <summary>A system call that failed, on the control path.</summary>
public sealed class LinuxException(int errno, string action)
    : IOException($"{action}: {LinuxError.Describe(errno)}")
{
    /// <summary>The error number.</summary>
    public int Errno { get; } = errno;

    /// <summary>Throws with the error number of the last call when <paramref name="result"/> is negative.</summary>
    public static int Check(int result, string action) =>
        result >= 0
            ? result
            : throw new LinuxException(System.Runtime.InteropServices.Marshal.GetLastPInvokeError(), action);
}
