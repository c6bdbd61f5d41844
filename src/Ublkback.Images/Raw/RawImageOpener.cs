using Ublkback.Block;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Raw;

/// <summary>
/// Opens raw images: <c>raw:/path</c> or just the path, of a file or a block device. Options: <c>cache=none</c>
/// (direct I/O where the storage allows it, the default) or <c>cache=writeback</c> (the page cache);
/// <c>share=unsafe</c>
/// (no lock: the admin promises that the users of the image do not hurt each other); <c>sector-size=512</c> (the
/// default) or <c>sector-size=4096</c>, for files: what the guest sees as the disk's smallest unit.
/// </summary>
public static class RawImageOpener
{
    private const int MaxSectorSize = 4096;

    /// <summary>Opens an image. Blocks, so runs on a helper thread.</summary>
    /// <exception cref="TargetException">It cannot be opened; the message says why.</exception>
    public static IBlockImage Open(BlockTarget target, ImageOpening opening)
    {
        target.AllowOnly("cache", "share", "sector-size");
        bool isShared = target.GetChoice("share", "no", "unsafe") == "unsafe";
        int sectorSize = target.GetChoice("sector-size", "512", "4096") == "512"
            ? BlockRequest.SectorSize
            : MaxSectorSize;
        return RawFile.Open(
            target.Location, opening, WantsDirect(target), isShared, (file, _) => Measure(file, sectorSize, opening),
            sectorSize)
            .MakeImage(opening.Warn);
    }

    /// <summary>Opens an image by its path and options, for formats that lie in a file. Blocks.</summary>
    /// <exception cref="TargetException">It cannot be opened; the message says why.</exception>
    public static IBlockImage Open(string path, IReadOnlyDictionary<string, string> options, ImageOpening opening) =>
        Open(new BlockTarget([], BlockTarget.RawScheme, path, options), opening);

    /// <summary>Whether somebody has locked a file, which is open, to write it.</summary>
    public static bool IsWritten(FileDescriptor file) => ImageLock.IsWritten(file);

    /// <summary>The option <c>cache</c>: whether I/O passes by the page cache.</summary>
    internal static bool WantsDirect(BlockTarget target) => target.GetChoice("cache", "none", "writeback") == "none";

    /// <summary>The unit in bytes that a discard frees; 0 when it frees nothing.</summary>
    internal static int MeasureDiscard(FileDescriptor file, FileStatus status)
    {
        if (status.Kind == FileKind.BlockDevice) return BlockDevice.DiscardGranularityOf(status.RawDevice);
        return FileHole.CanPunch(file, status.Length) ? status.BlockSize : 0;
    }

    private static ImageGeometry Measure(RawFile raw, int fileSectorSize, ImageOpening opening)
    {
        (string path, long length, bool isReadOnly) = (raw.Path, raw.Length, opening.IsReadOnly);
        if (raw.IsDevice && !isReadOnly && BlockDevice.IsReadOnly(raw.File))
            throw new TargetException($"{path} is a read-only device", "attach the disk read-only (access=ro)");
        int sectorSize = raw.IsDevice ? BlockDevice.SectorSizeOf(raw.File) : fileSectorSize;
        int physicalSize = raw.IsDevice ? BlockDevice.PhysicalSectorSizeOf(raw.File) : fileSectorSize;
        if (length == 0)
            throw new TargetException($"{path} is empty", "give it a size, for instance with truncate --size=10G");
        if (length % sectorSize != 0 && sectorSize != BlockRequest.SectorSize)
            throw new TargetException($"the size of {path}, {length} bytes, is not a multiple of {sectorSize}: it is "
                + "no disk image, or was cut short");
        if (sectorSize > MaxSectorSize)
            throw new TargetException($"{path} has sectors of {sectorSize} bytes; guests know up to {MaxSectorSize}");
        return new ImageGeometry(
            RawImage.SectorsOf(length, sectorSize), sectorSize, physicalSize, isReadOnly,
            isReadOnly || !opening.AllowsDiscard ? 0 : MeasureDiscard(raw.File, raw.Status));
    }
}
