namespace Ublkback.Block;

/// <summary>Opens the image of one scheme. Runs on a helper thread and may block.</summary>
/// <exception cref="TargetException">The image cannot be opened; the message says why.</exception>
public delegate IBlockImage ImageOpener(BlockTarget target, ImageOpening opening);

/// <summary>
/// A scheme of images: how they are opened, and what else tools can do with them. A scheme is one registration in a
/// <see cref="BlockCatalog"/>; all but the opener is optional. Everything blocks.
/// </summary>
/// <param name="Name">The word before the colon in targets.</param>
/// <param name="Open">Opens an image.</param>
public sealed record ImageScheme(string Name, ImageOpener Open)
{
    /// <summary>How its targets are written, for error messages.</summary>
    public string Example { get; init; } = $"{Name}:LOCATION";

    /// <summary>Creates an empty image; null if the scheme cannot.</summary>
    public Action<BlockTarget, NewImage>? Create { get; init; }

    /// <summary>Reports what an image says of itself, in use or not; null if the scheme cannot.</summary>
    public Func<BlockTarget, ImageReport>? Describe { get; init; }

    /// <summary>Checks an image, and on demand repairs it; null if the scheme cannot.</summary>
    public Func<BlockTarget, bool, ImageOpening, Task<ImageReport>>? CheckAsync { get; init; }

    /// <summary>What images over a backing image need; null if the scheme has none.</summary>
    public OverlayScheme? Overlay { get; init; }

    /// <summary>True if its images are an <see cref="IAllocationMap"/>.</summary>
    public bool HasMap { get; init; }

    /// <summary>
    /// Returns the block device that holds exactly the disk, so that other programs can open it in our place; null if
    /// there is none.
    /// </summary>
    public Func<BlockTarget, string?> FindDevice { get; init; } = static _ => null;

    /// <summary>Returns a URI by which QEMU reads the same image; null if there is none.</summary>
    public Func<BlockTarget, string?> FindUri { get; init; } = static _ => null;

    /// <summary>
    /// Returns the target with the right to open the backing images that it names, to show to the administrator. No
    /// command takes that right by itself: whoever made an image chose what it names.
    /// </summary>
    public BlockTarget Trust(BlockTarget target) => Overlay?.Trust(target) ?? target;
}

/// <summary>Images that show a backing image where they have no data.</summary>
/// <param name="Trust">Returns a target with the right to open the backing images that it names.</param>
/// <param name="Alone">Returns a target that opens an image for reading, without its backing image.</param>
/// <param name="FindBacking">Returns the backing image of an image; null if it has none. Refuses one that the target
/// does not allow.</param>
public sealed record OverlayScheme(
    Func<BlockTarget, BlockTarget> Trust, Func<BlockTarget, BlockTarget> Alone,
    Func<BlockTarget, BlockTarget?> FindBacking);

/// <summary>An image to create.</summary>
/// <param name="Size">Bytes of the disk.</param>
/// <param name="ClusterSize">Bytes of the unit of allocation, for formats that have one; null for the default.</param>
/// <param name="Backing">The backing image; null for none.</param>
public sealed record NewImage(long Size, long? ClusterSize = null, BlockTarget? Backing = null)
{
    /// <summary>
    /// True if the image is to be filled now. An <see cref="IUnfinishedImage"/> notes that, other images do not.
    /// </summary>
    public bool IsUnfinished { get; init; }
}

/// <summary>A report on an image.</summary>
/// <param name="Lines">The report for people.</param>
/// <param name="Json">The report for programs.</param>
/// <param name="IsSound">True if the image needs no repair.</param>
public sealed record ImageReport(IReadOnlyList<string> Lines, string Json, bool IsSound = true);
