using Ublkback.Block;
using Ublkback.Parallax.Collect;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Map;
using Ublkback.Parallax.Stores;

namespace Ublkback.Parallax.Admin;

/// <summary>
/// Repairs a VDI that nobody has open. Where the newer head, or what it tells of, is damaged, the older one and the log
/// since then say the same. Where the log is damaged, it ends there. What damaged nodes covered is lost, and said to
/// be: nothing is ever guessed. Blocks the thread, or waits.
/// </summary>
/// <param name="store">The store.</param>
/// <param name="loop">Where the VDI is used meanwhile.</param>
/// <param name="opening">How it is opened.</param>
/// <param name="say">Takes what is given up, in sentences.</param>
internal sealed class VdiRepairer(IVdiStore store, BlockLoop loop, ImageOpening opening, Action<string> say)
{
    /// <summary>Repairs it. What is damaged still can be found by another check.</summary>
    /// <exception cref="TargetException">It cannot be repaired, or somebody has it open.</exception>
    public async Task RunAsync(string name)
    {
        using IDisposable alone = store.LockCollection(Collector.CommandPatience);
        using IDisposable structure = store.LockStructure();
        IVdiContainer container = store.OpenOwn(name, "none", opening);
        IAsyncDisposable held = container;
        try
        {
            VdiImage image = Open(name, container);
            held = image;
            await image.InvokeAsync(() => RepairAsync(name, image.Parts)).ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is IOException or InvalidDataException)
        {
            throw new TargetException(
                $"VDI {name} cannot be repaired: {failure.Message}", "restore it from a copy", failure);
        }
        finally
        {
            await held.DisposeAsync().ConfigureAwait(false);
        }
    }

    private VdiImage Open(string name, IVdiContainer container)
    {
        EssentialBlocks essential = EssentialBlocks.Read(container);
        foreach (string fault in essential.FindFaults(container.Path)) say($"VDI {name}: {fault}");
        essential.Restore(container);
        (VdiSuperblock superblock, IReadOnlyList<VdiHead> heads) = (essential.Superblock, essential.Heads);
        List<RepairCandidate> remains = [
            .. heads.Select(head => RepairCandidate.Read(store, container, superblock, head))];
        if (remains.Count == 0)
            throw new InvalidDataException(
                $"both heads of {container.Path} and their copies are damaged, and nothing else tells where its data "
                + "is");
        // The older head will do if the log goes on from there to where the other one ends.
        RepairCandidate best = remains is [_, { Damages: 0 } older] && remains[0].Damages > 0
            && older.End.Sequence >= remains[0].End.Sequence ? older : remains[0];
        if (best != remains[0])
            say($"VDI {name}: what the last checkpoint wrote is damaged; the one before it and the log say the same, "
                + "so nothing is lost");
        if (best.Faults is [_, ..]) say($"VDI {name}: {string.Join("; ", best.Faults)}");
        VdiParts parts = new(
            container, best.Known, best.Content, null, vdi => store.OpenOther(vdi, opening.Warn), null, opening.Warn);
        VdiImage image = new(
            parts,
            new ImageGeometry(
                (ulong)parts.Content.Size / BlockRequest.SectorSize, BlockRequest.SectorSize, VdiFormat.BlockSize,
                false, 0));
        image.UseOn(loop);
        return image;
    }

    private async Task<bool> RepairAsync(string name, VdiParts parts)
    {
        string where = $"VDI {name}";
        VdiContent content = parts.Content;
        MapRepairer maps = new(parts.Nodes, parts.NodeWriter, (block, count) =>
            say($"{where}: {count} blocks of 4 KiB from byte {VdiFormat.OffsetOf(block)} on are given up, since "
                + "nothing tells where they are; they are I/O errors until they are written"));
        (BlockStatus status, MapEntry root) = await maps.RunAsync(content.Map.Root);
        content.Map.Mend(root);
        foreach (VdiSnapshot snapshot in content.Snapshots.All.ToList())
        {
            if (status != BlockStatus.Okay) break;
            where = $"VDI {name}@{snapshot.Name}";
            (status, root) = await maps.RunAsync(snapshot.Content.Root);
            content.Snapshots.Mend(snapshot.Id, root);
        }

        if (status == BlockStatus.Okay) status = await parts.Checkpointer.RunAsync();
        if (status == BlockStatus.Okay) status = await parts.Checkpointer.RepeatHeadAsync();
        return status == BlockStatus.Okay
            ? true
            : throw new IOException($"{parts.Container.Path} cannot be written: {status}");
    }
}
