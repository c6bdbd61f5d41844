using Ublkback.Block;
using Ublkback.Parallax.Collect;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Stores;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Admin;

/// <summary>
/// Opens VDIs: <c>vdi:NAME</c>, or <c>vdi:NAME@SNAPSHOT</c> for reading. Options: <c>store=file:FOLDER</c>, or
/// <c>store=rados:POOL</c> with <c>conf=</c> and <c>id=</c>; <c>cache=</c> as for raw images.
/// </summary>
public static class VdiOpener
{
    /// <summary>The scheme of targets.</summary>
    public const string Scheme = "vdi";

    private const string StoreOption = "store";

    private static readonly string[] StoreOptions = [StoreOption, .. RadosAddress.Options];

    /// <summary>Opens a VDI. Blocks, so runs on a helper thread.</summary>
    /// <exception cref="TargetException">It cannot be opened; the message says why.</exception>
    public static IBlockImage Open(BlockTarget target, ImageOpening opening)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentNullException.ThrowIfNull(opening);
        target.AllowOnly([.. StoreOptions, "cache"]);
        VdiName name = VdiName.Parse(target.Location);
        string cache = target.GetChoice("cache", "none", "writeback");
        IVdiStore store = OpenStore(target);
        try
        {
            VdiImage image = Open(store, name, cache, opening);
            image.Owned = store;
            return image;
        }
        catch
        {
            store.Dispose();
            throw;
        }
    }

    /// <summary>Returns the error for a VDI into which a copy was begun that has not ended.</summary>
    internal static TargetException ExplainUnfinished(string name) => new(
        $"VDI {name} is unfinished: its import did not end",
        $"go on with 'ublkback vdi import TARGET {name} --compare', or delete it with 'ublkback vdi delete {name}'");

    /// <summary>Makes an empty VDI, and the store if it is not there.</summary>
    /// <exception cref="TargetException">It cannot be made; nothing is left.</exception>
    public static void Create(BlockTarget target, long size, bool isUnfinished = false)
    {
        ArgumentNullException.ThrowIfNull(target);
        target.AllowOnly(StoreOptions);
        if (target.Hooks.Count > 0) throw new TargetException("the target of a new VDI has no hooks");
        using IVdiStore store = OpenStore(target, makes: true);
        Create(store, target.Location, size, isUnfinished);
    }

    /// <summary>Makes an empty VDI in a store.</summary>
    internal static void Create(IVdiStore store, string name, long size, bool isUnfinished = false)
    {
        using IDisposable structure = store.LockStructure();
        CheckFinished(store, name);
        store.Create(
            name,
            vdi => new VdiVersion(
                MapRoot.EmptyFor(VdiFormat.BlocksFor(size)), size, vdi,
                new LogPosition(VdiFormat.SegmentBlocks, 0, 1, 0), 1), "", isUnfinished);
    }

    /// <summary>Opens a VDI of a store, or a snapshot.</summary>
    internal static VdiImage Open(IVdiStore store, VdiName name, string cache, ImageOpening opening)
    {
        if (name.Snapshot is not null && !opening.IsReadOnly)
            throw new TargetException(
                $"{name} is a snapshot, which is never written",
                $"attach it read-only (access=ro), or make a clone of it with 'ublkback vdi clone {name} NEW'");
        IVdiContainer container = name.Snapshot is null
            ? store.OpenOwn(name.Vdi, cache, opening)
            : store.OpenOther(store.Find(name.Vdi), opening.Warn).Container;
        IDisposable? pin = null;
        try
        {
            if (!opening.IsReadOnly) Restore(container, opening.Warn);
            VdiMetadata known = VdiMetadata.Read(container);
            uint vdi = known.Superblock.Vdi;
            if (known.Head.IsUnfinished && !opening.OpensUnfinished) throw ExplainUnfinished(name.Vdi);
            if (name.Snapshot is null && store.Find(name.Vdi) != vdi)
                throw new TargetException($"VDI {name} was replaced while it was being opened", "try again");
            (IVdiContainer, VdiSuperblock) OpenOther(uint other) => store.OpenOther(other, opening.Warn);
            VdiParts parts;
            if (name.Snapshot is null)
            {
                parts = new VdiParts(container, known, known.Head.Content, null, OpenOther, null, opening.Warn);
                if (!opening.IsReadOnly) return Finish(parts, opening, image =>
                {
                    Housekeeper housekeeper = new(store, image, opening.Warn);
                    parts.Segments.OnFull = housekeeper.CollectAsync;
                    parts.Log.OnEnded = () =>
                    {
                        parts.Checkpointer.BeginIfDue();
                        housekeeper.BeginIfDue();
                    };
                    return VdiSocket.Open(store, vdi, image, opening.Warn);
                });
            }
            else
            {
                VdiSnapshot snapshot = VdiSnapshots.Find(store, name, known, container);
                pin = store.Pin(vdi, snapshot.Id, opening.Warn);
                CheckIsThere(store, name, vdi, snapshot);
                parts = new VdiParts(container, known, snapshot.Content, snapshot.Id, OpenOther, pin, opening.Warn);
            }

            return Finish(parts, opening, null);
        }
        catch (Exception failure)
        {
            pin?.Dispose();
            container.Dispose();
            throw failure is IOException or InvalidDataException
                ? new TargetException($"VDI {name} cannot be opened: {failure.Message}", failure)
                : failure;
        }
    }

    // Who imports again is told how to go on.
    private static void CheckFinished(IVdiStore store, string name)
    {
        if (!store.Names.Contains(name)) return;
        if (store.ReadMetadata(store.Find(name), _ => { }).Head.IsUnfinished) throw ExplainUnfinished(name);
    }

    // It may have been deleted before it was pinned.
    private static void CheckIsThere(IVdiStore store, VdiName name, uint vdi, VdiSnapshot snapshot)
    {
        using IVdiContainer container = store.OpenOther(vdi, _ => { }).Container;
        if (store.Find(name.Vdi) != vdi
            || VdiSnapshots.Find(store, name, VdiMetadata.Read(container), container).Id != snapshot.Id)
            throw new TargetException($"{name} was replaced while it was being opened", "try again");
    }

    // What is small and essential has two copies again before anything is written.
    private static void Restore(IVdiContainer container, Action<string> warn)
    {
        EssentialBlocks blocks = EssentialBlocks.Read(container);
        foreach (string fault in blocks.FindFaults(container.Path)) warn(fault);
        try
        {
            blocks.Restore(container);
        }
        catch (IOException failure)
        {
            warn($"{container.Path}: its essential blocks cannot be repaired: {failure.Message}");
        }
    }

    private static IVdiStore OpenStore(BlockTarget target, bool makes = false) =>
        VdiStoreFactory.Open(target.Options.GetValueOrDefault(StoreOption), target.Options, makes);

    private static VdiImage Finish(VdiParts parts, ImageOpening opening, Func<VdiImage, IDisposable>? makeDoor)
    {
        ImageGeometry geometry = new(
            (ulong)parts.Content.Size / BlockRequest.SectorSize, BlockRequest.SectorSize, VdiFormat.BlockSize,
            opening.IsReadOnly,
            opening.IsReadOnly || !opening.AllowsDiscard ? 0 : VdiFormat.BlockSize);
        VdiImage image = new(parts, geometry);
        parts.Door = makeDoor?.Invoke(image);
        return image;
    }
}
