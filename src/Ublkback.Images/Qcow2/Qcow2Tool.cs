using System.Numerics;
using System.Text;
using Microsoft.Win32.SafeHandles;
using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Qcow2.Metadata;
using Ublkback.Images.Raw;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2;

/// <summary>What can be done with images that no guest uses: make, look at, check. Blocks.</summary>
internal static class Qcow2Tool
{
    /// <summary>The cluster size of new images, when nobody says: 64 KiB, as in qemu-img.</summary>
    public const int DefaultClusterSize = 64 << 10;

    private const int MinClusterSize = 4 << 10;
    private const long MaxVirtualSize = 1L << 56;

    /// <summary>Makes an empty image in a new file.</summary>
    /// <param name="path">Where it is to be.</param>
    /// <param name="virtualSize">Bytes of the disk.</param>
    /// <param name="clusterSize">Bytes of a cluster: a power of two from 4 KiB to 2 MiB.</param>
    /// <param name="backing">The backing file, as the image is to name it, and its format; null for none.</param>
    /// <exception cref="TargetException">It cannot be made; nothing is left.</exception>
    public static void Create(string path, long virtualSize, int clusterSize, (string Name, string Format)? backing)
    {
        const int MaxClusterSize = 1 << Qcow2Layout.MaxClusterBits;
        if (!BitOperations.IsPow2(clusterSize) || clusterSize is < MinClusterSize or > MaxClusterSize)
            throw new TargetException($"clusters cannot have {clusterSize} bytes", "give a power of two from 4K to 2M");
        if (virtualSize is < 0 or > MaxVirtualSize || virtualSize % BlockRequest.SectorSize != 0)
            throw new TargetException(
                $"a disk cannot have {virtualSize} bytes", $"give a multiple of {BlockRequest.SectorSize}");
        if (backing is (string name, _) && Encoding.UTF8.GetByteCount(name) > Qcow2Header.MaxBackingName)
            throw new TargetException(
                $"the name of the backing file is longer than {Qcow2Header.MaxBackingName} bytes");
        Qcow2Layout layout = new(BitOperations.Log2((uint)clusterSize), 4);
        if (layout.L1EntriesFor(virtualSize) > Qcow2Layout.MaxL1Bytes / Qcow2Layout.EntrySize)
            throw new TargetException(
                $"a disk of {virtualSize} bytes needs larger clusters than {clusterSize} bytes", "give --cluster-size");
        byte[] image = Qcow2Creator.Make(virtualSize, layout.ClusterBits, backing);
        try
        {
            using SafeFileHandle file = File.OpenHandle(path, FileMode.CreateNew, FileAccess.Write);
            RandomAccess.Write(file, image, 0);
            RandomAccess.FlushToDisk(file);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw new TargetException($"{path} cannot be made: {failure.Message}", failure);
        }
    }

    /// <summary>Reads what an image says of itself, in use or not.</summary>
    /// <exception cref="TargetException">It is none.</exception>
    public static Qcow2Info Read(string path)
    {
        try
        {
            // The place first: opening a pipe would wait for a writer, and '..' is the kernel's to resolve.
            using FileDescriptor place = FileDescriptor.OpenPath(path);
            if (FileStatus.Of(place).Kind is not (FileKind.Regular or FileKind.BlockDevice))
                throw new TargetException($"{path} is neither a file nor a block device");
            using SafeFileHandle file = File.OpenHandle(
                place.DevicePath, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
            Qcow2Header header = Qcow2Tables.ReadHeader(path, file, out _);
            return new Qcow2Info(
                header.Version, header.VirtualSize, RandomAccess.GetLength(file), header.Layout.ClusterSize,
                1 << header.Layout.RefcountOrder,
                header.BackingFile, header.BackingFormat, header.SnapshotCount, header.IsDirty, header.IsCorrupt);
        }
        catch (LinuxException failure)
        {
            throw new TargetException($"{path} cannot be read: {LinuxError.Describe(failure.Errno)}", failure);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw new TargetException($"{path} cannot be read: {failure.Message}", failure);
        }
    }

    /// <summary>
    /// Whether a killed daemon left changes of an image that are not in its file, and whether the image is marked as
    /// corrupt, so that they cannot be brought there; or whether what was written after its last flush may be missing.
    /// In use or not.
    /// </summary>
    /// <exception cref="TargetException">It is none, or that cannot be seen.</exception>
    public static (bool HasChanges, bool IsCorrupt, bool IsIncomplete) FindChangesOutside(
        string path, ImageOpening opening)
    {
        using RawFile raw = RawFile.Open(
            path, opening with { IsReadOnly = true }, wantsDirect: false, isShared: true, Qcow2Opener.MeasureContainer);
        using SafeFileHandle file = raw.OpenForReading();
        Qcow2Header header = Qcow2Tables.ReadHeader(path, file, out _, isForCheck: true);
        bool hasChanges = MetadataLogFile.HasChanges(raw, header, opening, out bool isIncomplete);
        return (hasChanges, header.IsCorrupt, isIncomplete);
    }

    /// <summary>Compares an image's reference counts with what is referred to; on demand makes them right.</summary>
    /// <exception cref="TargetException">It is in use, or cannot be read.</exception>
    public static Qcow2CheckReport Check(string path, bool repair, ImageOpening opening)
    {
        using RawFile raw = RawFile.Open(
            path, opening with { IsReadOnly = !repair }, wantsDirect: false, isShared: false,
            Qcow2Opener.MeasureContainer, isContainer: true);
        try
        {
            using SafeFileHandle file = repair ? raw.OpenForWriting() : raw.OpenForReading();
            Qcow2Checker checker = new(path, file, raw.Length, canGrow: !raw.IsDevice);
            Qcow2CheckReport report = checker.Check();
            if (repair && report.Unrepairable.Count == 0) checker.Repair();
            return report;
        }
        catch (IOException failure)
        {
            throw new TargetException($"{path} cannot be checked: {failure.Message}", failure);
        }
    }
}
