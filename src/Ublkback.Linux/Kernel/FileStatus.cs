using System.Runtime.InteropServices;

namespace Ublkback.Linux.Kernel;

/// <summary>What kind of file a <see cref="FileStatus"/> speaks of.</summary>
public enum FileKind
{
    /// <summary>Anything that cannot hold an image.</summary>
    Other,

    /// <summary>A regular file.</summary>
    Regular,

    /// <summary>A directory.</summary>
    Directory,

    /// <summary>A block device.</summary>
    BlockDevice,
}

/// <summary>What statx(2) says of an open file.</summary>
/// <param name="Kind">Its kind.</param>
/// <param name="CanWrite">Whether its mode lets anybody write.</param>
/// <param name="Device">Device the inode is on, major and minor in one number.</param>
/// <param name="Inode">Inode number, unique on its device.</param>
/// <param name="Length">Length in bytes; 0 for a device.</param>
/// <param name="BlockSize">The file system's unit of allocation and I/O in bytes.</param>
/// <param name="RawDevice">For a device its own number, major and minor in one.</param>
/// <param name="DirectMemoryAlignment">Alignment of memory for O_DIRECT in bytes; 0 when unsupported or not
/// told.</param>
/// <param name="DirectOffsetAlignment">Alignment of file offsets for O_DIRECT in bytes; 0 likewise.</param>
public readonly partial record struct FileStatus(
    FileKind Kind, bool CanWrite, ulong Device, ulong Inode, long Length, int BlockSize, ulong RawDevice,
    int DirectMemoryAlignment, int DirectOffsetAlignment)
{
    private const int EmptyPath = 0x1000; // AT_EMPTY_PATH, fcntl.h
    private const uint BasicStats = 0x7ff; // STATX_BASIC_STATS, stat.h
    private const uint DirectAlignment = 0x2000; // STATX_DIOALIGN
    private const int TypeMask = 0xF000;
    private const int WriteBits = 0x92; // 0222

    /// <summary>Asks for the status of an open file.</summary>
    public static unsafe FileStatus Of(FileDescriptor descriptor)
    {
        Statx status = default;
        LinuxException.Check(statx(descriptor, "", EmptyPath, BasicStats | DirectAlignment, &status), "statx");
        FileKind kind = (status.Mode & TypeMask) switch
        {
            0x8000 => FileKind.Regular,
            0x4000 => FileKind.Directory,
            0x6000 => FileKind.BlockDevice,
            _ => FileKind.Other,
        };
        return new FileStatus(
            kind, (status.Mode & WriteBits) != 0, ((ulong)status.DeviceMajor << 32) | status.DeviceMinor, status.Inode,
            (long)status.Size,
            (int)status.BlockSize,
            ((ulong)status.RawMajor << 32) | status.RawMinor,
            (int)status.DirectMemoryAlignment, (int)status.DirectOffsetAlignment);
    }

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static unsafe partial int statx(FileDescriptor directory, string path, int flags, uint mask, Statx* status);

    // struct statx, linux/stat.h; the fields used here.
    [StructLayout(LayoutKind.Explicit, Size = 256)]
    private struct Statx
    {
        [FieldOffset(4)]
        public uint BlockSize;

        [FieldOffset(28)]
        public ushort Mode;

        [FieldOffset(32)]
        public ulong Inode;

        [FieldOffset(40)]
        public ulong Size;

        [FieldOffset(128)]
        public uint RawMajor;

        [FieldOffset(132)]
        public uint RawMinor;

        [FieldOffset(136)]
        public uint DeviceMajor;

        [FieldOffset(140)]
        public uint DeviceMinor;

        [FieldOffset(152)]
        public uint DirectMemoryAlignment;

        [FieldOffset(156)]
        public uint DirectOffsetAlignment;
    }
}
