using System.Runtime.InteropServices;

namespace Ublkback.Linux.Kernel;

/// <summary>A range of address space, unmapped by whoever holds the object.</summary>
public sealed unsafe partial class MemoryMapping : IDisposable
{
    /// <summary>Bytes in a page.</summary>
    public const int PageSize = 4096;

    private const int ProtRead = 1; // mman.h
    private const int ProtWrite = 2;
    private const int MapShared = 1;
    private const int MapPrivate = 2;
    private const int MapFixed = 0x10;
    private const int MapAnonymous = 0x20;
    private const int MapNoReserve = 0x4000;

    private byte* _address;

    private MemoryMapping(byte* address, long length)
    {
        _address = address;
        Length = length;
    }

    /// <summary>First byte.</summary>
    public byte* Address => _address;

    /// <summary>First byte, as a number.</summary>
    public nint AddressNumber => (nint)_address;

    /// <summary>Length in bytes.</summary>
    public long Length { get; }

    /// <summary>The first bytes, valid until the range is unmapped.</summary>
    public Span<byte> Head(int length)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, Length);
        return new Span<byte>(_address, length);
    }

    /// <summary>Maps zeroed private memory; pages cost memory when they are first touched.</summary>
    public static MemoryMapping Anonymous(long length) =>
        Map(null, length, ProtRead | ProtWrite, MapPrivate | MapAnonymous | MapNoReserve, -1, 0);

    /// <summary>Maps a part of a file or device, shared.</summary>
    /// <exception cref="LinuxException">The mapping was refused.</exception>
    public static MemoryMapping Shared(FileDescriptor descriptor, long offset, long length, bool writable = true) =>
        Map(null, length, writable ? ProtRead | ProtWrite : ProtRead, MapShared, descriptor.Number, offset);

    /// <summary>Puts a part of a file over a part of this range.</summary>
    public void Replace(long start, FileDescriptor descriptor, long offset, long length, bool writable)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(start + length, Length);
        int protection = writable ? ProtRead | ProtWrite : ProtRead;
        Map(_address + start, length, protection, MapShared | MapFixed, descriptor.Number, offset);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        byte* address = _address;
        if (address == null) return;
        _address = null;
        LinuxException.Check(munmap(address, (nuint)Length), "munmap");
    }

    private static MemoryMapping Map(byte* address, long length, int protection, int flags, int descriptor, long offset)
    {
        byte* mapped = mmap(address, (nuint)length, protection, flags, descriptor, offset);
        return (nint)mapped == -1
            ? throw new LinuxException(Marshal.GetLastPInvokeError(), "mmap")
            : new MemoryMapping(mapped, length);
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial byte* mmap(
        byte* address, nuint length, int protection, int flags, int descriptor, long offset);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int munmap(byte* address, nuint length);
}
