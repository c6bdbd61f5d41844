using System.Runtime.InteropServices;

namespace Ublkback.Linux.Kernel;

/// <summary>
/// Locks on bytes of a file that belong to the open file description (fcntl(2), "Open file description locks"): they
/// last until the description is closed and all its I/O in flight is done, also after the process was killed.
/// </summary>
public static unsafe partial class OfdLock
{
    private const int GetLock = 36; // F_OFD_GETLK, fcntl.h
    private const int SetLock = 37; // F_OFD_SETLK
    private const int SetLockWait = 38; // F_OFD_SETLKW
    private const short ReadLock = 0;
    private const short WriteLock = 1;
    private const short Unlock = 2;

    /// <summary>Takes a shared lock on one byte; false when another description holds it exclusively.</summary>
    /// <exception cref="LinuxException">The file system has no locks.</exception>
    public static bool TryShare(FileDescriptor descriptor, long position) => TryLock(descriptor, position, ReadLock);

    /// <summary>Takes an exclusive lock on one byte; false when another description holds any.</summary>
    /// <exception cref="LinuxException">The file system has no locks.</exception>
    public static bool TryExclude(FileDescriptor descriptor, long position) => TryLock(descriptor, position, WriteLock);

    /// <summary>Takes an exclusive lock on one byte when no other description holds any. Blocks.</summary>
    /// <exception cref="LinuxException">The file system has no locks.</exception>
    public static void Exclude(FileDescriptor descriptor, long position) => Wait(descriptor, position, WriteLock);

    /// <summary>Takes a shared lock on one byte when no other description holds it exclusively. Blocks.</summary>
    /// <exception cref="LinuxException">The file system has no locks.</exception>
    public static void Share(FileDescriptor descriptor, long position) => Wait(descriptor, position, ReadLock);

    private static void Wait(FileDescriptor descriptor, long position, short type)
    {
        FileLock range = new() { Type = type, Start = position, Length = 1 };
        LinuxException.Check(fcntl(descriptor, SetLockWait, &range), "F_OFD_SETLKW");
    }

    private static bool TryLock(FileDescriptor descriptor, long position, short type)
    {
        FileLock range = new() { Type = type, Start = position, Length = 1 };
        int result = fcntl(descriptor, SetLock, &range);
        if (result >= 0) return true;
        int errno = Marshal.GetLastPInvokeError();
        return errno is LinuxError.TryAgain or LinuxError.AccessDenied
            ? false
            : throw new LinuxException(errno, "F_OFD_SETLK");
    }

    /// <summary>Gives back the locks on a range.</summary>
    public static void Release(FileDescriptor descriptor, long position, long length)
    {
        FileLock range = new() { Type = Unlock, Start = position, Length = length };
        LinuxException.Check(fcntl(descriptor, SetLock, &range), "F_OFD_SETLK");
    }

    /// <summary>Whether another description holds any lock on a byte.</summary>
    public static bool IsHeldByAnother(FileDescriptor descriptor, long position)
    {
        FileLock range = new() { Type = WriteLock, Start = position, Length = 1 };
        LinuxException.Check(fcntl(descriptor, GetLock, &range), "F_OFD_GETLK");
        return range.Type != Unlock;
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial int fcntl(FileDescriptor descriptor, int command, FileLock* range);

    // struct flock of x86_64; Process must be 0 for OFD locks.
    [StructLayout(LayoutKind.Explicit, Size = 32)]
    private struct FileLock
    {
        [FieldOffset(0)]
        public short Type;

        [FieldOffset(2)]
        public short Whence;

        [FieldOffset(8)]
        public long Start;

        [FieldOffset(16)]
        public long Length;

        [FieldOffset(24)]
        public int Process;
    }
}
