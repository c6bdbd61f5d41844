using System.Globalization;
using Mono.Unix.Native;
using Ublkback.Block;
using Ublkback.Linux;

namespace Ublkback.Images;

/// <summary>
/// Opens raw images: <c>raw:/path</c> or just the path, of a file or a block device. Options: <c>cache=none</c>
/// (direct I/O where the storage allows it, the default) or <c>cache=writeback</c> (the page cache); <c>share=unsafe</c>
/// (no lock: the admin promises that the users of the image do not hurt each other); <c>sector-size=512</c> (the default)
/// or <c>sector-size=4096</c>, for files: what the guest sees as the disk's smallest unit.
/// </summary>
public static class RawImageOpener
{
    private const int MaxSectorSize = 4096;

    /// <summary>Opens an image. Blocks, so runs on a helper thread.</summary>
    /// <exception cref="TargetException">It cannot be opened; the message says why.</exception>
    public static IBlockImage Open(BlockTarget target, ImageOpening opening)
    {
        target.AllowOnly("cache", "share", "sector-size");
        bool wantsDirect = target.GetChoice("cache", "none", "writeback") == "none";
        bool isShared = target.GetChoice("share", "no", "unsafe") == "unsafe";
        int fileSectorSize = target.GetChoice("sector-size", "512", "4096") == "512" ? BlockRequest.SectorSize : MaxSectorSize;
        string path = target.Location;
        if (!path.StartsWith('/')) throw new TargetException($"{path} is not an absolute path: begin it with /");

        try
        {
            FileStatus status = Examine(path, opening.IsReadOnly);
            bool useDirect = wantsDirect && AllowsDirect(status, fileSectorSize);
            FileDescriptor file = Reopen(path, opening.IsReadOnly, useDirect);
            ImageLock? imageLock = null;
            try
            {
                FileStatus opened = FileStatus.Of(file);
                if ((opened.Device, opened.Inode) != (status.Device, status.Inode))
                    throw new TargetException($"{path} was replaced while it was being opened: try again");
                ImageGeometry geometry = Measure(path, file, opened, fileSectorSize, opening);
                ImageFence.Take(path, file, opening);
                if (!isShared) imageLock = ImageLock.Take(path, file, opened, opening);
                return new RawImage(
                    path, IdentityOf(opened), file, opened.Kind == FileKind.BlockDevice, imageLock, geometry, opening.Warn);
            }
            catch
            {
                imageLock?.Dispose();
                file.Dispose();
                throw;
            }
        }
        catch (LinuxException failure)
        {
            throw new TargetException($"{path} cannot be opened: {LinuxError.Describe(failure.Errno)}", failure);
        }
    }

    private static string IdentityOf(FileStatus status) => status.Kind == FileKind.BlockDevice
        ? string.Create(CultureInfo.InvariantCulture, $"raw: device {status.RawDevice >> 32}:{(uint)status.RawDevice}")
        : string.Create(CultureInfo.InvariantCulture, $"raw: inode {status.Inode} on {status.Device >> 32}:{(uint)status.Device}");

    // A path alone is looked at first: opening a pipe or a tape for I/O could block or do things.
    private static FileStatus Examine(string path, bool isReadOnly)
    {
        FileStatus status;
        try
        {
            using FileDescriptor place = FileDescriptor.OpenPath(path);
            status = FileStatus.Of(place);
        }
        catch (LinuxException failure) when (failure.Errno == LinuxError.NoEntry)
        {
            throw new TargetException($"{path} does not exist: create it, or correct the target", failure);
        }

        return status.Kind switch
        {
            FileKind.Directory => throw new TargetException($"{path} is a directory: name a file or a block device"),
            FileKind.Other => throw new TargetException($"{path} is neither a file nor a block device"),
            FileKind.Regular when !isReadOnly && !status.CanWrite => throw new TargetException(
                $"{path} is read-only: attach the disk read-only (access=ro), or make the file writable"),
            _ => status,
        };
    }

    // Direct I/O must take the sectors that the guest is told of; a device itself says what they are.
    private static bool AllowsDirect(FileStatus status, int fileSectorSize) =>
        status.Kind == FileKind.BlockDevice
            ? status.DirectMemoryAlignment <= MemoryMapping.PageSize
            : status.DirectOffsetAlignment > 0 && status.DirectOffsetAlignment <= fileSectorSize
                && status.DirectMemoryAlignment <= MemoryMapping.PageSize;

    private static FileDescriptor Reopen(string path, bool isReadOnly, bool direct)
    {
        OpenFlags access = isReadOnly ? OpenFlags.O_RDONLY : OpenFlags.O_RDWR;
        try
        {
            return FileDescriptor.Open(path, direct ? access | OpenFlags.O_DIRECT : access);
        }
        catch (LinuxException failure) when (direct && failure.Errno == LinuxError.InvalidArgument)
        {
            return FileDescriptor.Open(path, access);
        }
        catch (LinuxException failure) when (failure.Errno is LinuxError.AccessDenied or LinuxError.ReadOnlyFileSystem
            or LinuxError.NotPermitted)
        {
            throw new TargetException(
                isReadOnly
                    ? $"{path} cannot be read: {LinuxError.Describe(failure.Errno)}"
                    : $"{path} cannot be written ({LinuxError.Describe(failure.Errno)}): attach the disk read-only (access=ro), or make it writable",
                failure);
        }
    }

    private static ImageGeometry Measure(
        string path, FileDescriptor file, FileStatus status, int fileSectorSize, ImageOpening opening)
    {
        bool isDevice = status.Kind == FileKind.BlockDevice;
        bool isReadOnly = opening.IsReadOnly;
        if (isDevice && !isReadOnly && BlockDevice.IsReadOnly(file))
            throw new TargetException($"{path} is a read-only device: attach the disk read-only (access=ro)");
        long length = isDevice ? BlockDevice.SizeOf(file) : status.Length;
        int sectorSize = isDevice ? BlockDevice.SectorSizeOf(file) : fileSectorSize;
        int physicalSize = isDevice ? BlockDevice.PhysicalSectorSizeOf(file) : fileSectorSize;
        if (length == 0)
            throw new TargetException($"{path} is empty: give it a size, for instance with truncate --size=10G");
        if (length % sectorSize != 0)
            throw new TargetException($"the size of {path}, {length} bytes, is not a multiple of {sectorSize}: it is no disk image, or was cut short");
        if (sectorSize > MaxSectorSize)
            throw new TargetException($"{path} has sectors of {sectorSize} bytes; guests know up to {MaxSectorSize}");
        return new ImageGeometry(
            (ulong)length / BlockRequest.SectorSize, sectorSize, physicalSize, isReadOnly,
            isReadOnly || !opening.AllowsDiscard ? 0 : MeasureDiscard(file, status));
    }

    private static int MeasureDiscard(FileDescriptor file, FileStatus status)
    {
        if (status.Kind == FileKind.BlockDevice) return BlockDevice.DiscardGranularityOf(status.RawDevice);
        return FileHole.CanPunch(file, status.Length) ? status.BlockSize : 0;
    }
}
