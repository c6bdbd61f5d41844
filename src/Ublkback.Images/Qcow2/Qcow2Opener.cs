using Microsoft.Win32.SafeHandles;
using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Qcow2.Metadata;
using Ublkback.Images.Raw;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2;

/// <summary>
/// Opens qcow2 images: <c>qcow2:/path</c>. Options: <c>cache=</c> as for raw images; <c>backing=allow</c>,
/// <c>backing=no</c> (the default) or <c>backing=/folder</c>: whether a backing file that the image names is opened, or
/// only if it lies in a folder. An image says itself what its backing file is, so who made the image would otherwise
/// choose which file of this host the guest reads.
/// </summary>
/// <param name="catalog">Opens backing images.</param>
internal sealed class Qcow2Opener(BlockCatalog catalog)
{
    /// <summary>The scheme of targets.</summary>
    public const string Scheme = "qcow2";

    /// <summary>Most images in a chain of backing files.</summary>
    public const int MaxChain = 200;

    /// <summary>
    /// The value of the option <c>backing</c> for tools that look at an image alone: what lies below is zeros.
    /// </summary>
    public const string NoBacking = "none";

    /// <summary>The option that says which backing files may be opened.</summary>
    public const string BackingOption = "backing";

    /// <summary>Opens an image. Blocks, so runs on a helper thread.</summary>
    /// <exception cref="TargetException">It cannot be opened; the message says why.</exception>
    public IBlockImage Open(BlockTarget target, ImageOpening opening)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentNullException.ThrowIfNull(opening);
        target.AllowOnly("cache", BackingOption);
        string path = target.Location;
        if (opening.Overlays.Count >= MaxChain)
            throw new TargetException(
                $"{path} is below {opening.Overlays.Count} other images, and this program opens {MaxChain}");

        bool isAlone = target.Options.GetValueOrDefault(BackingOption) == NoBacking;
        if (isAlone && !opening.IsReadOnly)
            throw new TargetException($"{path} cannot be written without what lies below it: "
                + $"{BackingOption}={NoBacking} is for tools that read");
        return Open(target, opening, isAlone);
    }

    /// <summary>
    /// Opens an image so that a flush and its end bring into the file what a killed process left elsewhere; nothing
    /// else is to be done with it. Blocks.
    /// </summary>
    /// <exception cref="TargetException">It cannot be opened; the message says why.</exception>
    public IBlockImage OpenToFinish(string path, ImageOpening opening) =>
        Open(new BlockTarget([], Scheme, path, new Dictionary<string, string>()), opening, isAlone: true);

    private Qcow2Image Open(BlockTarget target, ImageOpening opening, bool isAlone)
    {
        string path = target.Location;
        bool isReadOnly = opening.IsReadOnly;
        // A writer keeps tables in memory, so two of them do not go together, in one virtual machine or not.
        ImageOpening own = isReadOnly ? opening : opening with { SharingGroup = null };
        RawFile raw = RawFile.Open(
            path, own, RawImageOpener.WantsDirect(target), isShared: false, MeasureContainer, isContainer: true);
        try
        {
            Qcow2Tables tables = ReadTables(path, raw);
            MetadataLog log = MetadataLogFile.Open(raw, tables.Header, opening, out bool isBelieved);
            try
            {
                if (tables.Header.IsCorrupt && !isReadOnly)
                    throw new TargetException(
                        $"{path} was found to be broken",
                        "repair it with 'ublkback image check --repair', or attach it read-only (access=ro)");
                // A file ends with what is counted, or nearly; what is not may be in use all the same. A device goes
                // on.
                bool isDoubtful = tables.Header.IsDirty || (!raw.IsDevice && tables.HasUncounted(raw.Length));
                if (isDoubtful && !isReadOnly && !isBelieved)
                {
                    Repair(path, raw, tables.Header.IsDirty, opening.Warn);
                    tables = ReadTables(path, raw);
                }

                if (tables.Header.Bitmaps is not null && !isReadOnly && !isBelieved)
                    tables.BitmapClusters = FindBitmapClusters(path, raw);
                if (tables.Header.SnapshotCount > 0 && !isReadOnly)
                    tables.SnapshotClusters = FindSnapshotClusters(path, raw, tables.Header);
                IBlockImage? backing = isAlone ? null : OpenBacking(tables.Header, target, opening);
                return Assemble(raw, tables, backing, log, own);
            }
            catch
            {
                if (!isBelieved) log.Delete();
                log.Dispose();
                throw;
            }
        }
        catch (Exception failure)
        {
            raw.Dispose();
            if (failure is LinuxException)
                throw new TargetException($"{path} cannot be opened: {failure.Message}", failure);
            if (failure is IOException) throw new TargetException($"{path} cannot be read: {failure.Message}", failure);
            throw;
        }
    }

    /// <summary>
    /// Finds what an image says lies below it; null when nothing does. The target must allow it, as for opening.
    /// Blocks.
    /// </summary>
    /// <exception cref="TargetException">It is no image, or its backing file is not allowed, or none that this program
    /// opens.</exception>
    public BlockTarget? FindBacking(BlockTarget target)
    {
        ArgumentNullException.ThrowIfNull(target);
        Qcow2Info info = Qcow2Tool.Read(target.Location);
        return info.BackingFile is null
            ? null
            : new BackingFiles(catalog).Find(target, info.BackingFile, info.BackingFormat, [target.Location]);
    }

    private static Qcow2Tables ReadTables(string path, RawFile raw)
    {
        using SafeFileHandle file = raw.OpenForReading();
        return Qcow2Tables.Read(path, file);
    }

    // Nothing is freed because of what broken bitmaps say.
    private static IReadOnlyList<long> FindBitmapClusters(string path, RawFile raw)
    {
        try
        {
            using SafeFileHandle file = raw.OpenForReading();
            Qcow2Checker checker = new(path, file, raw.Length, canGrow: !raw.IsDevice);
            checker.Check();
            return checker.BitmapClusters;
        }
        catch (TargetException)
        {
            return [];
        }
    }

    private static IReadOnlyList<long> FindSnapshotClusters(string path, RawFile raw, Qcow2Header header)
    {
        using SafeFileHandle file = raw.OpenForReading();
        return SnapshotTable.Read(path, file, header).FindClusters(path, file, header);
    }

    // The writer before died with the host, or was another program that leaves reference counts for later.
    private static void Repair(string path, RawFile raw, bool isDirty, Action<string> warn)
    {
        using SafeFileHandle file = raw.OpenForWriting();
        Qcow2Checker checker = new(path, file, raw.Length, canGrow: !raw.IsDevice);
        Qcow2CheckReport report = checker.Check();
        if (!isDirty && report.Errors == 0) return;
        string cause = isDirty ? "was not closed by who wrote it last" : "uses clusters that it does not count";
        if (report.Unrepairable.Count > 0)
            throw new TargetException($"{path} {cause} and cannot be repaired: {report.Unrepairable[0]}");
        checker.Repair();
        warn(report.Leaks + report.Errors == 0
            ? $"{path} {cause}; its refcounts were checked and are right"
            : $"{path} {cause}; its refcounts were repaired: {report.Leaks} were too high, {report.Errors} wrong");
    }

    private static Qcow2Image Assemble(
        RawFile raw, Qcow2Tables tables, IBlockImage? backing, MetadataLog log, ImageOpening opening)
    {
        Qcow2Header header = tables.Header;
        RawImage image = raw.MakeImage(opening.Warn);
        long length = image.MeasureLength(); // a repair may have made it longer
        ContainerFile file = raw.IsDevice
            ? new ContainerFile(image, length, null, image.MeasureLength)
            : new ContainerFile(image, length, image.SetLength);
        int sectorSize = Math.Max(image.Geometry.SectorSize, backing?.Geometry.SectorSize ?? 0);
        ImageGeometry geometry = new(
            Qcow2Image.SectorsOf(header.VirtualSize, sectorSize), sectorSize,
            Math.Max(image.Geometry.PhysicalSectorSize, MemoryMapping.PageSize), opening.IsReadOnly,
            opening.IsReadOnly || !opening.AllowsDiscard ? 0 : header.Layout.ClusterSize);
        Qcow2Parts parts = new(
            tables, file, backing, (backing as Qcow2Image)?.ReaderOfUnchanged, log, raw.Path, opening.IsReadOnly,
            opening.Warn);
        return new Qcow2Image(parts, geometry, $"qcow2 in {image.Identity}");
    }

    private IBlockImage? OpenBacking(Qcow2Header header, BlockTarget target, ImageOpening opening)
    {
        if (header.BackingFile is not string name) return null;
        List<string> overlays = [.. opening.Overlays, target.Location];
        BlockTarget backing = new BackingFiles(catalog).Find(target, name, header.BackingFormat, overlays);
        try
        {
            return catalog.Open(
                backing, opening with { IsReadOnly = true, AllowsDiscard = false, Overlays = overlays });
        }
        catch (TargetException refusal)
        {
            throw new TargetException($"the backing file of {target.Location}: {refusal.Message}", refusal);
        }
    }

    /// <summary>The shape of the file that an image is in.</summary>
    internal static ImageGeometry MeasureContainer(RawFile raw, ImageOpening opening)
    {
        if (raw.Length == 0)
            throw new TargetException($"{raw.Path} is empty", "make an image with 'ublkback image create'");
        return new ImageGeometry(
            (ulong)raw.Length / BlockRequest.SectorSize,
            BlockRequest.SectorSize,
            raw.IsDevice ? BlockDevice.PhysicalSectorSizeOf(raw.File) : BlockRequest.SectorSize, opening.IsReadOnly,
            opening.IsReadOnly ? 0 : RawImageOpener.MeasureDiscard(raw.File, raw.Status));
    }
}
