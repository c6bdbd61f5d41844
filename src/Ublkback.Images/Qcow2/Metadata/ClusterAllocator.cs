using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// Keeps the reference counts of an image's file, and gives out clusters that have none. On the image's worker; one
/// allocation at a time.
/// </summary>
/// <remarks>
/// In memory a count is never lower than what the file's tables, or changes that wait to be written to them, need. So
/// counts may be written at any moment; a crash leaves counts that are too high at worst.
/// </remarks>
internal sealed class ClusterAllocator(
    Qcow2Layout layout, ContainerFile file, MetadataCache cache, ReservedClusters reserved, HeaderFile header,
    LoopMutex tables,
    ulong[] table, long tableOffset)
{
    private const long GrowthStep = 16 << 20; // bytes by which the file grows at least
    private const long MaxHostOffset = 1L << 55;

    private readonly LoopMutex _turns = new();
    private readonly Memory<byte> _zeros = PinnedMemory.AllocatePages(layout.ClusterSize);
    private long _next; // no cluster below it is free
    // nothing was ever written from there on
    private long _freshFrom = file.CanGrow ? layout.ClustersFor(file.Length) : long.MaxValue;

    /// <summary>Where the blocks of reference counts are.</summary>
    public DirtyTable Table { get; private set; } = new(table);

    /// <summary>Where that table is.</summary>
    public long TableOffset { get; private set; } = tableOffset;

    /// <summary>The end of the last cluster that may be in use; bytes.</summary>
    public long UsedEnd { get; private set; } = layout.OffsetOf(layout.ClustersFor(file.Length));

    /// <summary>Clusters that the file does not refer to any more, and that are still counted.</summary>
    public List<long> Unused { get; } = [];

    /// <summary>Takes up to a number of neighbouring clusters, with a count of 1.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<HostRun> AllocateAsync(int most)
    {
        await _turns.EnterAsync();
        HostRun run = await FindAsync(most);
        _turns.Leave();
        return run;
    }

    /// <summary>
    /// Lowers the counts of neighbouring clusters. What is not used any more gives its storage back first, so that
    /// nobody has it meanwhile. The result tells whether the last of them is free now.
    /// </summary>
    public async ValueTask<bool> ReleaseAsync(long first, int count = 1)
    {
        bool isFree = false;
        while (count > 0)
        {
            (_, MetadataPage? page, int index) = await FindPageAsync(first);
            if (page is null) return false;
            int together = Math.Min(count, CountsPerPage - index);
            int unused = 0;
            while (unused < together && CountAt(page, index + unused) == 1) unused++;
            isFree = unused > 0;
            if (isFree)
            {
                await file.FreeAsync(layout.OffsetOf(first), layout.OffsetOf(unused)); // that it fails costs space only
                (_, page, index) = await FindPageAsync(first);
                if (page is null) return false;
            }

            int done = Math.Max(unused, 1);
            for (int i = 0; i < done; i++)
            {
                ulong old = CountAt(page, index + i);
                if (old > 0) Refcount.Set(page.Data.Span, index + i, layout.RefcountOrder, old - 1);
            }

            MetadataCache.MarkDirty(page, cache.DirtyRefcounts);
            if (isFree) _next = Math.Min(_next, first);
            first += done;
            count -= done;
        }

        return isFree;
    }

    /// <summary>
    /// Raises the count of a cluster that a change refers to which is not in the file: it may be there already.
    /// </summary>
    public async ValueTask<BlockStatus> ClaimAsync(long cluster)
    {
        if (cluster >= (long)Table.Count * layout.RefcountsPerBlock) return BlockStatus.IoError;
        (BlockStatus status, MetadataPage? page, int index) = await FindPageAsync(cluster);
        if (status != BlockStatus.Okay) return status;
        if (page is null)
        {
            status = await MakeBlockAsync((int)(cluster / layout.RefcountsPerBlock));
            if (status != BlockStatus.Okay) return status;
            (status, page, index) = await FindPageAsync(cluster);
            if (page is null) return BlockStatus.IoError;
        }

        if (CountAt(page, index) > 0) return BlockStatus.Okay;
        Refcount.Set(page.Data.Span, index, layout.RefcountOrder, 1);
        MetadataCache.MarkDirty(page, cache.DirtyRefcounts);
        return BlockStatus.Okay;
    }

    private int CountsPerPage => (int)((long)cache.PageSize * 8 >> layout.RefcountOrder);

    private ulong CountAt(MetadataPage page, int index) => Refcount.Get(page.Data.Span, index, layout.RefcountOrder);

    private async ValueTask<HostRun> FindAsync(int most)
    {
        while (true)
        {
            if (layout.OffsetOf(_next) >= MaxHostOffset || (!file.CanGrow && layout.OffsetOf(_next + 1) > file.Length))
                return new HostRun(BlockStatus.NoSpace);
            int block = (int)(_next / layout.RefcountsPerBlock);
            if (block >= Table.Count)
            {
                BlockStatus grown = await GrowTableAsync(block);
                if (grown != BlockStatus.Okay) return new HostRun(grown);
                continue;
            }

            long at = _next;
            (BlockStatus status, MetadataPage? page, int index) = await FindPageAsync(at);
            if (status == BlockStatus.Okay && page is null) status = await MakeBlockAsync(block);
            if (status != BlockStatus.Okay) return new HostRun(status);
            if (page is null || _next != at) continue; // a cluster before was freed meanwhile

            int end = CountsPerPage;
            long pageStart = at - index;
            while (index < end && CountAt(page, index) != 0) index++;
            _next = pageStart + index;
            if (index == end) continue;
            return await TakeAsync(page, index, Math.Min(most, end - index));
        }
    }

    private async ValueTask<HostRun> TakeAsync(MetadataPage page, int index, int most)
    {
        long first = _next;
        int count = 1;
        bool isFresh = first >= _freshFrom;
        while (count < most && CountAt(page, index + count) == 0
            && (file.CanGrow || layout.OffsetOf(first + count + 1) <= file.Length)) count++;
        for (int i = 0; i < count; i++)
        {
            if (reserved.Contains(first + i)) return new HostRun(BlockStatus.IoError); // its counts are wrong
        }

        long end = layout.OffsetOf(first + count);
        if (file.CanGrow && end > file.Length)
        {
            BlockStatus grown = await GrowFileAsync(end);
            if (grown != BlockStatus.Okay) return new HostRun(grown);
            (_, MetadataPage? again, _) = await FindPageAsync(first);
            if (again is null) return new HostRun(BlockStatus.IoError);
            page = again;
        }

        for (int i = 0; i < count; i++) Refcount.Set(page.Data.Span, index + i, layout.RefcountOrder, 1);
        MetadataCache.MarkDirty(page, cache.DirtyRefcounts);
        if (_next == first) _next = first + count;
        _freshFrom = Math.Max(_freshFrom, first + count);
        UsedEnd = Math.Max(UsedEnd, end);
        return new HostRun(BlockStatus.Okay, layout.OffsetOf(first), count, isFresh);
    }

    // A file has at least a length from here on; a device has the one it has.
    private ValueTask<BlockStatus> GrowFileAsync(long end) => file.CanGrow && end > file.Length
        ? file.SetLengthAsync((end + GrowthStep - 1) / GrowthStep * GrowthStep)
        : new ValueTask<BlockStatus>(BlockStatus.Okay);

    // The page with the count of a cluster, and its place there; no page when there is no block for it yet.
    private async ValueTask<(BlockStatus Status, MetadataPage? Page, int Index)> FindPageAsync(long cluster)
    {
        long block = cluster / layout.RefcountsPerBlock;
        if (block >= Table.Count) return (BlockStatus.Okay, null, 0);
        long offset = (long)Table[(int)block];
        if (offset == 0) return (BlockStatus.Okay, null, 0);
        if (!layout.IsAligned(offset) || offset is < 0 or > MaxHostOffset) return (BlockStatus.IoError, null, 0);
        int within = (int)(cluster % layout.RefcountsPerBlock);
        MetadataPage? page = await cache.GetAsync(offset + ((long)(within / CountsPerPage) * cache.PageSize));
        return page is null ? (BlockStatus.IoError, null, 0) : (BlockStatus.Okay, page, within % CountsPerPage);
    }

    // The block counts itself: it takes the first of the clusters that it is for, none of which is in use.
    private async ValueTask<BlockStatus> MakeBlockAsync(int block)
    {
        long cluster = (long)block * layout.RefcountsPerBlock;
        long offset = layout.OffsetOf(cluster);
        if (reserved.Contains(cluster)) return BlockStatus.IoError;
        BlockStatus status = await WriteNewBlockAsync(offset, used: 1);
        if (status != BlockStatus.Okay) return status;
        reserved.Add(cluster);
        Table[block] = (ulong)offset;
        _freshFrom = Math.Max(_freshFrom, cluster + 1);
        UsedEnd = Math.Max(UsedEnd, offset + layout.ClusterSize);
        return BlockStatus.Okay;
    }

    private async ValueTask<BlockStatus> WriteNewBlockAsync(long offset, int used)
    {
        BlockStatus grown = await GrowFileAsync(offset + layout.ClusterSize);
        if (grown != BlockStatus.Okay) return grown;
        _zeros.Span.Clear();
        for (int i = 0; i < used; i++) Refcount.Set(_zeros.Span, i, layout.RefcountOrder, 1);
        return await file.WriteAsync(offset, _zeros);
    }

    // The larger table lies behind all that the smaller one counts, with the block that counts it.
    private async ValueTask<BlockStatus> GrowTableAsync(int block)
    {
        int entriesPerCluster = layout.EntriesPerTable;
        int oldClusters = (Table.Count + entriesPerCluster - 1) / entriesPerCluster;
        int clusters = Math.Max(2 * oldClusters, (block / entriesPerCluster) + 1);
        long oldOffset = TableOffset;
        long first = (long)Table.Count * layout.RefcountsPerBlock;
        if (clusters + 1 > layout.RefcountsPerBlock
            || layout.OffsetOf(clusters) > Math.Max(Qcow2Layout.MaxRefcountTableBytes, layout.ClusterSize))
            return BlockStatus.NoSpace;
        BlockStatus status = await WriteNewBlockAsync(layout.OffsetOf(first), used: clusters + 1);
        if (status != BlockStatus.Okay) return status;
        ulong[] entries = new ulong[clusters * entriesPerCluster];
        Table.Entries.CopyTo(entries);
        entries[Table.Count] = (ulong)layout.OffsetOf(first);
        DirtyTable larger = new(entries);
        long offset = layout.OffsetOf(first + 1);
        status = await GrowFileAsync(offset + layout.OffsetOf(clusters));
        if (status != BlockStatus.Okay) return status;

        Memory<byte> bytes = PinnedMemory.AllocatePages((int)layout.OffsetOf(clusters));
        for (int i = 0; i < bytes.Length / BlockRequest.SectorSize; i++)
            larger.CopySector(i, bytes.Span[(i * BlockRequest.SectorSize)..][..BlockRequest.SectorSize]);
        status = await file.WriteAsync(offset, bytes);
        if (status != BlockStatus.Okay) return status;
        await tables.EnterAsync();
        status = await MoveTableAsync(larger, offset, clusters);
        tables.Leave();
        if (status != BlockStatus.Okay) return status;
        for (int i = 0; i <= clusters; i++) reserved.Add(first + i);
        for (int i = 0; i < oldClusters; i++) Unused.Add(layout.ClusterOf(oldOffset) + i);
        _freshFrom = Math.Max(_freshFrom, first + clusters + 1);
        UsedEnd = Math.Max(UsedEnd, offset + layout.OffsetOf(clusters));
        return BlockStatus.Okay;
    }

    private async ValueTask<BlockStatus> MoveTableAsync(DirtyTable larger, long offset, int clusters)
    {
        // What the old one has in memory only is in the larger one; so are the blocks that it names.
        BlockStatus status = await file.FlushAsync();
        if (status == BlockStatus.Okay) status = await header.SetRefcountTableAsync(offset, clusters);
        if (status == BlockStatus.Okay) status = await file.FlushAsync();
        if (status == BlockStatus.Okay) (Table, TableOffset) = (larger, offset);
        return status;
    }
}
