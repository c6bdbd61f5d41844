using System.Buffers.Binary;
using System.Text;
using Microsoft.Win32.SafeHandles;
using Mono.Unix.Native;
using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Raw;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>Which file a log's image is in, as the log says: the device, its handle there, its path. Blocks.</summary>
internal static class MetadataLogOwner
{
    // The device; the handle's type, length, bytes; the path's length, the path.
    private const int HandleTypeAt = 8;
    private const int HandleLengthAt = 12;
    private const int HandleAt = 16;
    private const int PathLengthAt = HandleAt + FileHandle.MaxBytes;
    private const int PathAt = PathLengthAt + 4;

    /// <summary>Has a log say which file its image is in.</summary>
    public static void Set(MetadataLog log, RawFile raw)
    {
        Span<byte> owner = log.Owner;
        owner.Clear();
        // The node of a device is made anew, so its handle says nothing.
        if (!raw.IsDevice && FileHandle.Of(raw.File) is FileHandle handle)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(owner, raw.Status.Device);
            BinaryPrimitives.WriteInt32LittleEndian(owner[HandleTypeAt..], handle.Type);
            BinaryPrimitives.WriteInt32LittleEndian(owner[HandleLengthAt..], handle.Bytes.Length);
            handle.Bytes.CopyTo(owner[HandleAt..]);
        }

        ReadOnlySpan<byte> path = Encoding.UTF8.GetBytes(raw.Path);
        if (path.Length > owner.Length - PathAt) return;
        BinaryPrimitives.WriteInt32LittleEndian(owner[PathLengthAt..], path.Length);
        path.CopyTo(owner[PathAt..]);
    }

    /// <summary>Whether the image of a log is there; null if that cannot be seen.</summary>
    /// <exception cref="LinuxException">A file cannot be opened.</exception>
    public static bool? HasImage(MetadataLog log)
    {
        ReadOnlySpan<byte> owner = log.Owner;
        int handleLength = BinaryPrimitives.ReadInt32LittleEndian(owner[HandleLengthAt..]);
        int pathLength = BinaryPrimitives.ReadInt32LittleEndian(owner[PathLengthAt..]);
        if (handleLength is <= 0 or > FileHandle.MaxBytes || pathLength <= 0 || pathLength > owner.Length - PathAt)
            return null;
        FileHandle handle = new(
            BinaryPrimitives.ReadInt32LittleEndian(owner[HandleTypeAt..]),
            owner.Slice(HandleAt, handleLength).ToArray());
        string image = Encoding.UTF8.GetString(owner.Slice(PathAt, pathLength));
        string? home = Path.GetDirectoryName(image);
        if (home is null || !Directory.Exists(home)) return null;
        using FileDescriptor folder = FileDescriptor.Open(home, OpenFlags.O_RDONLY | OpenFlags.O_DIRECTORY);
        // Another file system may be mounted there now, or none.
        if (FileStatus.Of(folder).Device != BinaryPrimitives.ReadUInt64LittleEndian(owner)) return null;
        bool? isThere = handle.IsThere(folder);
        // Some file systems forget the handles of files that nobody uses; and a copy may have taken the image's place.
        return isThere == false ? HasHandle(image, handle) || HasGeneration(image, log) : isThere;
    }

    private static bool HasHandle(string path, FileHandle handle)
    {
        try
        {
            using FileDescriptor place = FileDescriptor.OpenPath(path);
            return FileHandle.Of(place) is FileHandle there && there.Type == handle.Type
                && there.Bytes.AsSpan().SequenceEqual(handle.Bytes);
        }
        catch (LinuxException failure) when (failure.Errno == LinuxError.NoEntry)
        {
            return false;
        }
    }

    private static bool HasGeneration(string path, MetadataLog log)
    {
        try
        {
            using FileDescriptor place = FileDescriptor.OpenPath(path);
            if (FileStatus.Of(place).Kind != FileKind.Regular) return false;
            using SafeFileHandle file = File.OpenHandle(
                place.DevicePath, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            return log.IsOf(Qcow2Tables.ReadHeader(path, file, out _).Generation);
        }
        catch (Exception failure)
            when (failure is TargetException or LinuxException { Errno: LinuxError.NoEntry })
        {
            return false;
        }
    }
}
