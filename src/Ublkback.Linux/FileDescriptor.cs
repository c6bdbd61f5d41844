using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using Mono.Unix.Native;

namespace Ublkback.Linux;

/// <summary>An open file description of ours. Whoever holds the object closes it.</summary>
public sealed class FileDescriptor : SafeHandleZeroOrMinusOneIsInvalid
{
    /// <summary>Takes ownership of a descriptor.</summary>
    public FileDescriptor(int number)
        : base(ownsHandle: true) => SetHandle(number);

    /// <summary>The descriptor's number. Valid while the object is not disposed.</summary>
    public int Number => (int)handle;

    /// <summary>A path that opens the same file, for calls that take a path only.</summary>
    public string DevicePath => $"/proc/self/fd/{Number}";

    /// <summary>Opens a path; close-on-exec is always set.</summary>
    /// <exception cref="LinuxException">The path cannot be opened.</exception>
    public static FileDescriptor Open(string path, OpenFlags flags)
    {
        int number = Syscall.open(path, flags | OpenFlags.O_CLOEXEC);
        return number >= 0
            ? new FileDescriptor(number)
            : throw new LinuxException(Marshal.GetLastPInvokeError(), path);
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => Syscall.close((int)handle) == 0;
}
