using Ublkback.Block;

namespace Ublkback.Parallax;

/// <summary>
/// Opens VDIs: <c>vdi:NAME</c>, or <c>vdi:NAME@SNAPSHOT</c> for reading. Options: <c>store=file:FOLDER</c>; <c>cache=</c> as for raw images.
/// </summary>
public static class VdiOpener
{
    /// <summary>The scheme of targets.</summary>
    public const string Scheme = "vdi";

    private const string StoreOption = "store";
    private const string FilePrefix = "file:";

    /// <summary>Opens a VDI. Blocks, so runs on a helper thread.</summary>
    /// <exception cref="TargetException">It cannot be opened; the message says why.</exception>
    public static IBlockImage Open(BlockTarget target, ImageOpening opening)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentNullException.ThrowIfNull(opening);
        target.AllowOnly(StoreOption, "cache");
        VdiName name = VdiName.Parse(target.Location);
        return Open(OpenStore(target.Options.GetValueOrDefault(StoreOption)), name, target.GetChoice("cache", "none", "writeback"), opening);
    }

    /// <summary>Makes an empty VDI, and the store if it is not there.</summary>
    /// <exception cref="TargetException">It cannot be made; nothing is left.</exception>
    public static void Create(BlockTarget target, long size)
    {
        ArgumentNullException.ThrowIfNull(target);
        target.AllowOnly(StoreOption);
        if (target.Hooks.Count > 0) throw new TargetException("the target of a new VDI has no hooks");
        Create(OpenStore(target.Options.GetValueOrDefault(StoreOption), makes: true), target.Location, size);
    }

    /// <summary>Makes an empty VDI in a store.</summary>
    internal static void Create(FileStore store, string name, long size)
    {
        CheckSize(size);
        using IDisposable structure = store.LockStructure();
        store.Create(name, vdi => new VdiVersion(MapRoot.EmptyFor(VdiFormat.BlocksFor(size)), size, vdi, new LogPosition(VdiFormat.SegmentBlocks, 0, 1, 0), 1), "");
    }

    /// <summary>Refuses sizes that a VDI cannot have.</summary>
    internal static void CheckSize(long size)
    {
        if (size is <= 0 or > VdiFormat.MaxSize || size % BlockRequest.SectorSize != 0)
            throw new TargetException($"a VDI cannot have {size} bytes: give a multiple of {BlockRequest.SectorSize}, 128T at most");
    }

    /// <summary>Opens a store: <c>file:FOLDER</c>; null for the one that is used unless something else is said.</summary>
    /// <exception cref="TargetException">There is none.</exception>
    internal static FileStore OpenStore(string? text, bool makes = false)
    {
        text ??= FilePrefix + FileStore.DefaultFolder;
        return text.StartsWith(FilePrefix, StringComparison.Ordinal)
            ? FileStore.Open(text[FilePrefix.Length..], makes)
            : throw new TargetException($"the store {text} is of no kind that this program knows: use {FilePrefix}FOLDER");
    }

    /// <summary>Opens a VDI of a store, or a snapshot.</summary>
    internal static VdiImage Open(FileStore store, VdiName name, string cache, ImageOpening opening)
    {
        if (name.Snapshot is not null && !opening.IsReadOnly)
            throw new TargetException($"{name} is a snapshot, which is never written: attach it read-only (access=ro), or make a clone of it with 'ublkback vdi clone {name} NEW'");
        IVdiContainer container = name.Snapshot is null ? store.OpenOwn(name.Vdi, cache, opening) : store.OpenOther(store.Find(name.Vdi), opening.Warn).Container;
        IDisposable? pin = null;
        try
        {
            VdiFile known = VdiFile.Read(container);
            uint vdi = known.Superblock.Vdi;
            (IVdiContainer, VdiSuperblock) OpenOther(uint other) => store.OpenOther(other, opening.Warn);
            VdiParts parts;
            if (name.Snapshot is null)
            {
                parts = new VdiParts(container, known, known.Head.Content, null, OpenOther, null, opening.Warn);
                if (!opening.IsReadOnly) return Finish(parts, opening, image =>
                {
                    Housekeeper housekeeper = new(store, image, opening.Warn);
                    parts.Log.OnEnded = () =>
                    {
                        parts.Checkpointer.BeginIfDue();
                        housekeeper.BeginIfDue();
                    };
                    return new VdiDoor(store, vdi, image, opening.Warn);
                });
            }
            else
            {
                VdiSnapshot snapshot = VdiSnapshots.Find(store, name, known, container);
                pin = store.Pin(vdi, snapshot.Id);
                parts = new VdiParts(container, known, snapshot.Content, snapshot.Id, OpenOther, pin, opening.Warn);
            }

            return Finish(parts, opening, null);
        }
        catch (Exception failure)
        {
            pin?.Dispose();
            container.DisposeAsync().AsTask().GetAwaiter().GetResult();
            throw failure is IOException or InvalidDataException ? new TargetException($"VDI {name} cannot be opened: {failure.Message}", failure) : failure;
        }
    }

    private static VdiImage Finish(VdiParts parts, ImageOpening opening, Func<VdiImage, VdiDoor>? makeDoor)
    {
        ImageGeometry geometry = new(
            (ulong)parts.Content.Size / BlockRequest.SectorSize, BlockRequest.SectorSize, VdiFormat.BlockSize, opening.IsReadOnly,
            opening.IsReadOnly || !opening.AllowsDiscard ? 0 : VdiFormat.BlockSize);
        VdiImage image = new(parts, geometry);
        parts.Door = makeDoor?.Invoke(image);
        return image;
    }
}
