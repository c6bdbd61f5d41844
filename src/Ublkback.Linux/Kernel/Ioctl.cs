using System.Runtime.InteropServices;

namespace Ublkback.Linux.Kernel;

/// <summary>The ioctl system call.</summary>
public static unsafe partial class Ioctl
{
    /// <summary>Calls a driver with a pointer to its argument; the result as the driver gives it, or −errno.</summary>
    public static int Call(FileDescriptor descriptor, uint request, void* argument)
    {
        int result = ioctl(descriptor, request, argument);
        return result >= 0 ? result : -Marshal.GetLastPInvokeError();
    }

    /// <summary>Calls a driver as <see cref="Call"/> does.</summary>
    /// <exception cref="LinuxException">The driver refused; the message begins with
    /// <paramref name="action"/>.</exception>
    public static int Check(FileDescriptor descriptor, uint request, void* argument, string action) =>
        LinuxException.Check(ioctl(descriptor, request, argument), action);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int ioctl(FileDescriptor descriptor, nuint request, void* argument);
}
