using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using Mono.Unix.Native;

namespace Ublkback.Linux.Kernel;

/// <summary>An open file description of ours. Whoever holds the object closes it.</summary>
public sealed partial class FileDescriptor : SafeHandleZeroOrMinusOneIsInvalid
{
    internal const int PathOnly = 0x200000; // O_PATH, fcntl.h
    internal const int CloseOnExec = 0x80000; // O_CLOEXEC

    /// <summary>Takes ownership of a descriptor.</summary>
    public FileDescriptor(int number)
        : base(ownsHandle: true) => SetHandle(number);

    /// <summary>Names a descriptor that somebody else owns and closes.</summary>
    internal static FileDescriptor Of(System.Net.Sockets.Socket socket) =>
        new((int)socket.SafeHandle.DangerousGetHandle(), isOwner: false);

    private FileDescriptor(int number, bool isOwner)
        : base(isOwner) => SetHandle(number);

    /// <summary>The descriptor's number. Valid while the object is not disposed.</summary>
    public int Number => (int)handle;

    /// <summary>A path that opens the same file, for calls that take a path only.</summary>
    public string DevicePath => $"/proc/self/fd/{Number}";

    /// <summary>Opens a path, close-on-exec; a file that is made is the user's alone.</summary>
    /// <exception cref="LinuxException">The path cannot be opened.</exception>
    public static FileDescriptor Open(string path, OpenFlags flags)
    {
        int number = Syscall.open(
            path, flags | OpenFlags.O_CLOEXEC, FilePermissions.S_IRUSR | FilePermissions.S_IWUSR);
        return number >= 0
            ? new FileDescriptor(number)
            : throw new LinuxException(Marshal.GetLastPInvokeError(), path);
    }

    /// <summary>Opens just the place in the file system (O_PATH): for its status, not for I/O.</summary>
    /// <exception cref="LinuxException">There is nothing there.</exception>
    public static FileDescriptor OpenPath(string path) =>
        new(LinuxException.Check(open(path, PathOnly | CloseOnExec), path));

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => Syscall.close((int)handle) == 0;

    // Mono.Posix's open does not know O_PATH.
    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int open(string path, int flags);
}
