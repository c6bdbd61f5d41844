using System.Runtime.InteropServices;
using Ublkback.Linux.Kernel;

namespace Ublkback.Linux.Files;

/// <summary>
/// I/O on files that are kept in memory (tmpfs). Those file systems know no asynchronous I/O, so io_uring would hand
/// each request to a thread of the kernel's; copying is done before such a thread is woken. It blocks only when the
/// pages have been swapped out.
/// </summary>
[DataPath]
public static unsafe partial class MemoryFileIo
{
    private const long TmpfsMagic = 0x01021994; // linux/magic.h
    private const long RamfsMagic = 0x858458f6;

    /// <summary>Whether a file is kept in memory.</summary>
    public static bool Fits(FileDescriptor file)
    {
        long* status = stackalloc long[16]; // struct statfs, 120 bytes; f_type is first
        return fstatfs(file, status) == 0 && *status is TmpfsMagic or RamfsMagic;
    }

    /// <summary>Reads; a byte count or −errno.</summary>
    public static int Read(FileDescriptor file, Memory<byte> buffer, long offset) =>
        Result(pread(file.Number, PinnedMemory.AddressOf(buffer), (nuint)buffer.Length, offset));

    /// <summary>Writes; a byte count or −errno.</summary>
    public static int Write(FileDescriptor file, Memory<byte> buffer, long offset) =>
        Result(pwrite(file.Number, PinnedMemory.AddressOf(buffer), (nuint)buffer.Length, offset));

    private static int Result(nint result) => result >= 0 ? (int)result : -Marshal.GetLastPInvokeError();

    [LibraryImport("libc", SetLastError = true)]
    private static partial int fstatfs(FileDescriptor file, void* status);

    [LibraryImport("libc", SetLastError = true)]
    private static partial nint pread(int descriptor, void* buffer, nuint length, long offset);

    [LibraryImport("libc", SetLastError = true)]
    private static partial nint pwrite(int descriptor, void* buffer, nuint length, long offset);
}
