using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Qcow2.Metadata;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2.Clusters;

/// <summary>Makes the disk of an image larger, in use or not, or smaller. On the image's worker.</summary>
/// <remarks>
/// A loss of power at any moment leaves a disk of the old size or of the new: the header says the new one last. What is
/// added reads as zeros, whatever was there when the disk was larger, and whatever lies below.
/// </remarks>
internal sealed class Resizer(
    Qcow2Header header, ContainerFile file, HeaderFile headerFile, ClusterMap map, ClusterAllocator allocator,
    RefcountBlocks blocks, ClusterReader reader, ClusterWriter writer, ClusterLinks links, MetadataCommit commit,
    ReservedClusters reserved, LoopMutex tables)
{
    private const int MaxTries = 1000; // for neighbouring clusters, while a guest takes some too
    private const int CopyBytes = 64 << 10;

    private Qcow2Layout Layout => header.Layout;

    /// <summary>Changes the size; for one caller at a time. A smaller one is for disks that no guest uses.</summary>
    /// <exception cref="TargetException">It cannot be done.</exception>
    public async Task<BlockStatus> ResizeAsync(long bytes)
    {
        if (header.Version < 3 && (header.SnapshotCount > 0 || reader.HasBacking))
            throw new TargetException(
                "an image of version 2 with snapshots or a backing file cannot be resized",
                "make it version 3 with 'qemu-img amend -o compat=1.1'");
        if (Layout.L1EntriesFor(bytes) > Qcow2Layout.MaxL1Bytes / Qcow2Layout.EntrySize)
            throw new TargetException(
                $"a disk of {bytes} bytes needs larger clusters than {Layout.ClusterSize} bytes",
                "make it anew with --cluster-size");
        BlockStatus status = await links.PrepareAsync();
        if (status == BlockStatus.Okay)
            status = bytes < map.DiskSize
                ? await writer.CutAsync(bytes)
                : await ExtendAsync(bytes);
        if (status == BlockStatus.Okay) status = await commit.RunAsync();
        if (status == BlockStatus.Okay) status = await headerFile.SetSizeAsync(bytes);
        if (status != BlockStatus.Okay) return status;
        status = await file.FlushAsync();
        if (status == BlockStatus.Okay) map.DiskSize = bytes;
        else await headerFile.ResetSizeAsync(map.DiskSize); // a failed resize has no effect at the next opening
        return status;
    }

    private async ValueTask<BlockStatus> ExtendAsync(long bytes)
    {
        int entries = (int)Layout.L1EntriesFor(bytes);
        BlockStatus status = entries > map.L1.Count ? await MoveL1Async(entries) : BlockStatus.Okay;
        if (status == BlockStatus.Okay) status = await ClearEndAsync();
        return status == BlockStatus.Okay && reader.BackingSize > map.DiskSize
            ? await writer.HideBackingAsync(
                Layout.ClustersFor(map.DiskSize), Layout.ClustersFor(Math.Min(bytes, reader.BackingSize)))
            : status;
    }

    // The rest of the last cluster: the guest could not see it, and now it will.
    private async ValueTask<BlockStatus> ClearEndAsync()
    {
        long end = map.DiskSize;
        int within = Layout.WithinCluster(end);
        if (within == 0) return BlockStatus.Okay;
        EntryPlace place = await map.FindAsync(Layout.ClusterOf(end));
        if (place.Status != BlockStatus.Okay) return place.Status;
        L2Entry entry = place.Page is MetadataPage page ? new L2Entry(page[place.Index]) : default;
        if (reader.IsZero(entry, end - within)) return BlockStatus.Okay;
        return await writer.WriteAsync(end, PinnedMemory.AllocatePages(Layout.ClusterSize)[within..]);
    }

    // The file has the larger table, empty where it is larger, before the header points to it.
    private async ValueTask<BlockStatus> MoveL1Async(int entries)
    {
        int clusters = (int)Layout.ClustersFor((long)entries * Qcow2Layout.EntrySize);
        HostRun run = await AllocateTogetherAsync(clusters);
        if (run.Status != BlockStatus.Okay) return run.Status;
        reserved.AddRange(run.Offset, Layout.OffsetOf(clusters));
        BlockStatus status = await commit.RunAsync(); // its reference counts
        if (status != BlockStatus.Okay) return status;
        await tables.EnterAsync();
        status = await MoveL1Async(run.Offset, clusters, entries);
        tables.Leave();
        return status;
    }

    // When it fails the new clusters stay counted: a header that could not be written may point to them all the same.
    private async ValueTask<BlockStatus> MoveL1Async(long offset, int clusters, int entries)
    {
        long oldOffset = commit.L1Offset;
        long oldBytes = (long)map.L1.Count * Qcow2Layout.EntrySize;
        BlockStatus status = await CopyAsync(oldOffset, oldBytes, offset, Layout.OffsetOf(clusters));
        if (status == BlockStatus.Okay) status = await file.FlushAsync();
        if (status == BlockStatus.Okay) status = await headerFile.SetL1Async(offset, entries);
        if (status != BlockStatus.Okay) return status;
        for (long cluster = 0; cluster < Layout.ClustersFor(oldBytes); cluster++)
            blocks.Unused.Add(Layout.ClusterOf(oldOffset) + cluster);
        commit.L1Offset = offset;
        map.Enlarge(entries);
        return await file.FlushAsync();
    }

    // As the table is in the file: what it has in memory only may point to what is not durable.
    private async ValueTask<BlockStatus> CopyAsync(long from, long fromBytes, long to, long toBytes)
    {
        Memory<byte> copy = PinnedMemory.AllocatePages((int)Math.Min(CopyBytes, toBytes));
        BlockStatus status = BlockStatus.Okay;
        for (long at = 0; at < toBytes && status == BlockStatus.Okay; at += copy.Length)
        {
            int known = (int)Math.Clamp(fromBytes - at, 0, copy.Length);
            if (known > 0) status = await file.ReadAsync(from + at, copy);
            copy.Span[known..].Clear();
            if (status == BlockStatus.Okay) status = await file.WriteAsync(to + at, copy);
        }

        return status;
    }

    // Clusters are taken as they come until enough of them are neighbours; the others are given back.
    private async ValueTask<HostRun> AllocateTogetherAsync(int count)
    {
        List<HostRun> others = [];
        HostRun together = await allocator.AllocateAsync(count);
        for (int i = 0; i < MaxTries && together.Status == BlockStatus.Okay && together.Count < count; i++)
        {
            HostRun next = await allocator.AllocateAsync(count - together.Count);
            if (next.Status == BlockStatus.Okay && next.Offset == together.Offset + Layout.OffsetOf(together.Count))
            {
                together = together with { Count = together.Count + next.Count };
            }
            else
            {
                others.Add(together);
                together = next;
            }
        }

        if (together.Status == BlockStatus.Okay && together.Count < count)
        {
            others.Add(together);
            together = new HostRun(BlockStatus.NoSpace);
        }

        foreach (HostRun run in others) await allocator.ReleaseAsync(Layout.ClusterOf(run.Offset), run.Count);
        return together;
    }
}
