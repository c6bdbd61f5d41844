using System.Globalization;
using Microsoft.Win32.SafeHandles;
using Mono.Unix.Native;
using Ublkback.Block;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Raw;

/// <summary>
/// A file or block device that was opened for I/O, fenced against the I/O of processes before this one, and locked
/// against others.
/// </summary>
internal sealed class RawFile : IDisposable
{
    private readonly ImageGeometry _geometry;
    private readonly ImageLock? _lock;

    private RawFile(string path, FileDescriptor file, FileStatus status, ImageGeometry geometry, ImageLock? imageLock)
    {
        Path = path;
        File = file;
        Status = status;
        _geometry = geometry;
        _lock = imageLock;
    }

    /// <summary>Its absolute path.</summary>
    public string Path { get; }

    /// <summary>All I/O is on this description, which holds the locks too.</summary>
    public FileDescriptor File { get; }

    /// <summary>What it is.</summary>
    public FileStatus Status { get; }

    /// <summary>Whether it is a block device.</summary>
    public bool IsDevice => Status.Kind == FileKind.BlockDevice;

    /// <summary>Its length in bytes when it was opened.</summary>
    public long Length { get; private init; }

    /// <summary>Opens a file. Blocks.</summary>
    /// <param name="path">Its path.</param>
    /// <param name="opening">Who wants it, and for what.</param>
    /// <param name="wantsDirect">Whether I/O passes by the page cache where the storage allows it.</param>
    /// <param name="isShared">Whether nobody is excluded.</param>
    /// <param name="measure">Finds its shape; may refuse it.</param>
    /// <param name="sectorSize">The smallest unit of I/O on a file; devices say themselves.</param>
    /// <param name="isContainer">Whether it holds a format whose parts are at any sector of 512 bytes. A device with
    /// larger sectors is used through the page cache then.</param>
    /// <exception cref="TargetException">It cannot be opened; the message says why.</exception>
    public static RawFile Open(
        string path, ImageOpening opening, bool wantsDirect, bool isShared,
        Func<RawFile, ImageOpening, ImageGeometry> measure,
        int sectorSize = BlockRequest.SectorSize, bool isContainer = false)
    {
        if (!path.StartsWith('/')) throw new TargetException($"{path} is not an absolute path", "begin it with /");
        try
        {
            FileStatus status = Examine(path, opening.IsReadOnly);
            bool isDirect = wantsDirect && AllowsDirect(status, sectorSize);
            FileDescriptor file = Reopen(path, opening.IsReadOnly, isDirect);
            if (isDirect && isContainer && status.Kind == FileKind.BlockDevice
                && BlockDevice.SectorSizeOf(file) > BlockRequest.SectorSize)
            {
                file.Dispose();
                file = Reopen(path, opening.IsReadOnly, direct: false);
            }

            ImageLock? imageLock = null;
            try
            {
                FileStatus opened = FileStatus.Of(file);
                if ((opened.Device, opened.Inode) != (status.Device, status.Inode))
                    throw new TargetException($"{path} was replaced while it was being opened", "try again");
                long length = opened.Kind == FileKind.BlockDevice ? BlockDevice.SizeOf(file) : opened.Length;
                ImageGeometry geometry = measure(
                    new RawFile(path, file, opened, null!, null) { Length = length }, opening);
                ImageFence.Take(path, file, opening);
                if (!isShared) imageLock = ImageLock.Take(path, file, opened, opening, canShare: !isContainer);
                // others may have written until now
                if (opened.Kind != FileKind.BlockDevice) length = FileStatus.Of(file).Length;
                return new RawFile(path, file, opened, geometry, imageLock) { Length = length };
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

    /// <summary>An image that reads and writes it, and owns it from now on.</summary>
    public RawImage MakeImage(Action<string> warn) => new(Path, Identity, File, IsDevice, _lock, _geometry, warn);

    /// <summary>
    /// Another description of the same file, by way of the page cache, without touching the locks of this one.
    /// </summary>
    public SafeFileHandle OpenForReading() => OpenAgain(FileAccess.Read);

    /// <summary>The same, to change it.</summary>
    public SafeFileHandle OpenForWriting() => OpenAgain(FileAccess.ReadWrite);

    /// <summary>Closes it.</summary>
    public void Dispose()
    {
        File.Dispose();
        _lock?.Dispose();
    }

    private string Identity => IsDevice
        ? string.Create(CultureInfo.InvariantCulture, $"raw: device {Status.RawDevice >> 32}:{(uint)Status.RawDevice}")
        : string.Create(
            CultureInfo.InvariantCulture, $"raw: inode {Status.Inode} on {Status.Device >> 32}:{(uint)Status.Device}");

    private SafeFileHandle OpenAgain(FileAccess access) =>
        System.IO.File.OpenHandle(File.DevicePath, FileMode.Open, access, FileShare.ReadWrite | FileShare.Delete);

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
            throw new TargetException($"{path} does not exist", "create it, or correct the target", failure);
        }

        return status.Kind switch
        {
            FileKind.Directory => throw new TargetException($"{path} is a directory", "name a file or a block device"),
            FileKind.Other => throw new TargetException($"{path} is neither a file nor a block device"),
            FileKind.Regular when !isReadOnly && !status.CanWrite => throw new TargetException(
                $"{path} is read-only", "attach the disk read-only (access=ro), or make the file writable"),
            _ => status,
        };
    }

    // Direct I/O must take the sectors that the guest is told of; a device itself says what they are.
    private static bool AllowsDirect(FileStatus status, int sectorSize) =>
        status.Kind == FileKind.BlockDevice
            ? status.DirectMemoryAlignment <= MemoryMapping.PageSize
            : status.DirectOffsetAlignment > 0 && status.DirectOffsetAlignment <= sectorSize
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
            string why = LinuxError.Describe(failure.Errno);
            throw isReadOnly
                ? new TargetException($"{path} cannot be read: {why}", failure)
                : new TargetException(
                    $"{path} cannot be written ({why})",
                    "attach the disk read-only (access=ro), or make it writable", failure);
        }
    }
}
