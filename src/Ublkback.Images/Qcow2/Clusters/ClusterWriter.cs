using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Images.Common;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Qcow2.Metadata;

namespace Ublkback.Images.Qcow2.Clusters;

/// <summary>
/// Writes the guest's data: in place where the image has the cluster for itself, otherwise into a new cluster, with
/// what the rest of it shows now. And frees clusters. On the image's worker.
/// </summary>
/// <remarks>
/// Only who has claimed a guest's cluster changes its entry; others that want to wait, and look again. An entry changes
/// when all data that it makes visible is written.
/// </remarks>
[DataPath]
internal sealed class ClusterWriter(
    Qcow2Header header, ContainerFile file, ClusterMap map, ClusterAllocator allocator, ClusterReader reader,
    ClusterLinks links,
    ReservedClusters reserved, ImageScratch buffers, Corruption corruption)
{
    private readonly HashSet<long> _claimed = [];
    private readonly LoopCondition _claimEnded = new();

    private Qcow2Layout Layout => header.Layout;

    /// <summary>Writes bytes.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> WriteAsync(long offset, Memory<byte> data)
    {
        while (!data.IsEmpty)
        {
            if (corruption.IsFound) return BlockStatus.IoError;
            EntryPlace place = await map.FindAsync(Layout.ClusterOf(offset));
            Extent extent = Extent.Find(place, header, offset, data.Length);
            if (extent.Kind == ClusterKind.Invalid) return extent.ReportTo(corruption, offset);
            bool isInPlace = IsWrittenInPlace(extent.Kind, extent.Entry);
            int length = isInPlace ? (int)Math.Min(extent.Length, InPlaceEnd - extent.HostOffset) : 0;
            if (isInPlace && !MayBeWritten(extent.HostOffset, length))
                // off the path: the image is corrupt
                return corruption.Report($"the guest's byte {offset} is at {extent.HostOffset}, where it must not be");
            (BlockStatus status, int done) = isInPlace
                ? (await WriteInPlaceAsync(extent.HostOffset, data[..length]), length)
                : await WriteNewAsync(offset, data);
            if (status != BlockStatus.Okay) return status;
            offset += done;
            data = data[done..];
        }

        return BlockStatus.Okay;
    }

    /// <summary>
    /// Whether what is discarded reads as zeros. Over a backing image only version 3 can say that of a cluster.
    /// </summary>
    public bool DiscardMakesZeros => !reader.HasBacking || header.Version >= 3;

    /// <summary>Frees the clusters that lie in a range as a whole; they read as zeros if that can be.</summary>
    public ValueTask<BlockStatus> DiscardAsync(long offset, long byteCount)
    {
        long end = Math.Min(offset + byteCount, map.DiskSize);
        long last = end == map.DiskSize ? Layout.ClustersFor(end) : Layout.ClusterOf(end);
        return FreeAllAsync(Layout.ClustersFor(offset), last, isHiding: DiscardMakesZeros);
    }

    /// <summary>Frees the clusters behind a byte, where the disk is to end.</summary>
    public ValueTask<BlockStatus> CutAsync(long offset) =>
        FreeAllAsync(Layout.ClustersFor(offset), Layout.ClustersFor(map.DiskSize), isHiding: false);

    /// <summary>Has clusters show zeros where they would show what lies below. Not for version 2.</summary>
    public ValueTask<BlockStatus> HideBackingAsync(long first, long end) => FreeAllAsync(first, end, isHiding: true);

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> FreeAllAsync(long cluster, long end, bool isHiding)
    {
        while (cluster < end)
        {
            if (corruption.IsFound) return BlockStatus.IoError;
            EntryPlace place = await map.FindAsync(cluster);
            int most = (int)Math.Min(Layout.OffsetOf(end - cluster), int.MaxValue & -Layout.ClusterSize);
            Extent extent = Extent.Find(place, header, Layout.OffsetOf(cluster), most);
            if (extent.Kind == ClusterKind.Invalid) return extent.ReportTo(corruption, Layout.OffsetOf(cluster));
            int count = (int)Layout.ClustersFor(extent.Length);
            bool isHeld = extent.Kind is ClusterKind.Data or ClusterKind.Compressed || extent.Entry.HostOffset != 0;
            bool isShown = extent.Kind == ClusterKind.Unallocated && Layout.OffsetOf(cluster) < reader.BackingSize;
            if (isHeld || (isHiding && isShown))
            {
                (BlockStatus status, count) = await FreeAsync(cluster, count);
                if (status != BlockStatus.Okay) return status;
            }

            cluster += count;
        }

        return BlockStatus.Okay;
    }

    // The end of the last cluster that is written in place. A file's last cluster may be incomplete, and a file can
    // grow. What lies behind is zeros, and gets a new cluster.
    private long InPlaceEnd =>
        Layout.OffsetOf(file.CanGrow ? Layout.ClustersFor(file.Length) : Layout.ClusterOf(file.Length));

    private bool IsWrittenInPlace(ClusterKind kind, L2Entry entry) =>
        kind == ClusterKind.Data && entry.IsCopied && entry.HostOffset < InPlaceEnd;

    private bool MayBeWritten(long hostOffset, int length)
    {
        for (long cluster = Layout.ClusterOf(hostOffset); cluster < Layout.ClustersFor(hostOffset + length); cluster++)
        {
            if (reserved.Contains(cluster)) return false;
        }

        return true;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> WriteInPlaceAsync(long hostOffset, Memory<byte> data)
    {
        // Before the first change the file gets complete clusters.
        BlockStatus status = hostOffset + data.Length > file.Length ? await links.PrepareAsync() : BlockStatus.Okay;
        return status == BlockStatus.Okay ? await file.WriteAsync(hostOffset, data) : status;
    }

    // Without what is below, a free cluster is zeros; over it, only an entry that says so hides it. Version 2 has none.
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<(BlockStatus Status, int Done)> FreeAsync(long first, int most)
    {
        if (reader.HasBacking && header.Version < 3) return (BlockStatus.Okay, most);
        int claimed = Claim(first, most);
        if (claimed == 0)
        {
            await _claimEnded.WaitAsync();
            return (BlockStatus.Okay, 0);
        }

        int count = Math.Min(claimed, map.EntriesPerPage - (int)(first % map.EntriesPerPage));
        BlockStatus status = await links.LinkAsync(
            first, count, new L2Entry(reader.HasBacking ? L2Entry.ZeroFlag : 0), step: 0);
        Unclaim(first, claimed);
        return (status, count);
    }

    // Writes as much as there are new clusters for; nothing when the entry is another's, or is not what it was.
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<(BlockStatus Status, int Done)> WriteNewAsync(long offset, Memory<byte> data)
    {
        long first = Layout.ClusterOf(offset);
        if (Claim(first, 1) == 0)
        {
            await _claimEnded.WaitAsync();
            return (BlockStatus.Okay, 0);
        }

        int claimed = 1;
        BlockStatus status = await links.PrepareAsync();
        EntryPlace place = status == BlockStatus.Okay
            ? await map.FindToChangeAsync(first)
            : new EntryPlace(status, null, 0);
        int done = 0;
        status = place.Status;
        if (place.Page is not null)
        {
            int wanted = (int)(Layout.ClustersFor(offset + data.Length) - first);
            int count = CountNew(place, wanted);
            if (count > 1) claimed += Claim(first + 1, count - 1);
            if (count > 0)
            {
                L2Entry firstEntry = new(place.Page[place.Index]);
                L2Entry lastEntry = new(place.Page[place.Index + claimed - 1]);
                (status, done) = await WriteNewAsync(offset, data, claimed, firstEntry, lastEntry);
            }
        }

        Unclaim(first, claimed);
        return (status, done);
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<(BlockStatus Status, int Done)> WriteNewAsync(
        long offset, Memory<byte> data, int most, L2Entry firstEntry, L2Entry lastEntry)
    {
        long first = Layout.ClusterOf(offset);
        HostRun run = await allocator.AllocateAsync(most);
        if (run.Status != BlockStatus.Okay) return (run.Status, 0);
        int length = (int)Math.Min(data.Length, Layout.OffsetOf(run.Count) - Layout.WithinCluster(offset));
        bool isZeroAround = run.IsFresh && run.Count == most && reader.IsZero(firstEntry, Layout.OffsetOf(first))
            && reader.IsZero(lastEntry, Layout.OffsetOf(first + run.Count - 1));
        BlockStatus status = isZeroAround
            ? await file.WriteAsync(run.Offset + Layout.WithinCluster(offset), data[..length])
            : await FillAsync(run.Offset, offset, data[..length]);
        if (status == BlockStatus.Okay)
            status = await links.LinkAsync(first, run.Count, L2Entry.ForData(run.Offset), Layout.ClusterSize);
        if (status == BlockStatus.Okay) return (status, length);
        await allocator.ReleaseAsync(Layout.ClusterOf(run.Offset), run.Count);
        return (status, 0);
    }

    // Fills new clusters: the first and the last, where the data does not, with what the guest sees there now.
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> FillAsync(long hostOffset, long offset, Memory<byte> data)
    {
        int head = Layout.WithinCluster(offset);
        BlockStatus status = BlockStatus.Okay;
        if (head > 0 || data.Length < Layout.ClusterSize)
        {
            int length = Math.Min(Layout.ClusterSize - head, data.Length);
            status = await FillOneAsync(hostOffset, offset - head, head, data[..length]);
            data = data[length..];
            hostOffset += Layout.ClusterSize;
            offset += length;
        }

        int tail = Layout.WithinCluster(data.Length);
        int whole = data.Length - tail;
        if (status == BlockStatus.Okay && whole > 0) status = await file.WriteAsync(hostOffset, data[..whole]);
        if (status == BlockStatus.Okay && tail > 0)
            status = await FillOneAsync(hostOffset + whole, offset + whole, 0, data[whole..]);
        return status;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> FillOneAsync(long hostOffset, long clusterStart, int within, Memory<byte> data)
    {
        Memory<byte> cluster = await buffers.RentAsync(Layout.ClusterSize);
        BlockStatus status = await reader.ReadAsync(clusterStart, cluster);
        if (status == BlockStatus.Okay)
        {
            data.CopyTo(cluster[within..]);
            status = await file.WriteAsync(hostOffset, cluster);
        }

        buffers.Return(cluster);
        return status;
    }

    // Neighbouring entries from a place on whose clusters cannot be written in place.
    private int CountNew(in EntryPlace place, int most)
    {
        int count = 0;
        while (count < most && place.Index + count < map.EntriesPerPage)
        {
            L2Entry entry = new(place.Page![place.Index + count]);
            ClusterKind kind = entry.KindIn(Layout, header.Version);
            if (kind == ClusterKind.Invalid || IsWrittenInPlace(kind, entry)) break;
            count++;
        }

        return count;
    }

    // Claims neighbouring clusters up to the first that is another's.
    private int Claim(long first, int most)
    {
        int count = 0;
        while (count < most && _claimed.Add(first + count)) count++;
        return count;
    }

    private void Unclaim(long first, int count)
    {
        for (int i = 0; i < count; i++) _claimed.Remove(first + i);
        _claimEnded.WakeAll();
    }
}
