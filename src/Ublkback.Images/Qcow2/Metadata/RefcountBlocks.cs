using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// The blocks of reference counts of an image, and the table of their places: finds the count of a cluster, and makes
/// blocks and a larger table. On the image's worker; one caller at a time makes something.
/// </summary>
internal sealed class RefcountBlocks(
    Qcow2Layout layout, ContainerFile file, FileSpace space, MetadataCache cache, ReservedClusters reserved,
    HeaderFile header, LoopMutex tables, Corruption corruption, ulong[] table, long tableOffset)
{
    private readonly Memory<byte> _block = PinnedMemory.AllocatePages(layout.ClusterSize);

    /// <summary>Where the blocks are.</summary>
    public DirtyTable Table { get; private set; } = new(table);

    /// <summary>Where that table is.</summary>
    public long TableOffset { get; private set; } = tableOffset;

    /// <summary>Clusters of former tables, which the file does not refer to any more and which still count.</summary>
    public List<long> Unused { get; } = [];

    /// <summary>Counts in a page of the cache.</summary>
    public int CountsPerPage => (int)((long)cache.PageSize * 8 >> layout.RefcountOrder);

    /// <summary>A count in a page.</summary>
    public ulong CountAt(MetadataPage page, int index) =>
        Refcount.Get(page.Data.Span, index, layout.RefcountOrder);

    /// <summary>The block of a cluster. The table may be too small for it.</summary>
    public long BlockOf(long cluster) => cluster / layout.RefcountsPerBlock;

    /// <summary>
    /// Finds the page with the count of a cluster, and its place there; no page if there is no block for it.
    /// </summary>
    public async ValueTask<(BlockStatus Status, MetadataPage? Page, int Index)> FindPageAsync(long cluster)
    {
        long block = BlockOf(cluster);
        if (block >= Table.Count) return (BlockStatus.Okay, null, 0);
        long offset = (long)Table[(int)block];
        if (offset == 0) return (BlockStatus.Okay, null, 0);
        if (!layout.IsTablePlace(offset, file.Length))
            return (corruption.Report($"its block {block} of reference counts is at {offset:x}"), null, 0);
        int within = (int)(cluster % layout.RefcountsPerBlock);
        MetadataPage? page = await cache.GetAsync(offset + ((long)(within / CountsPerPage) * cache.PageSize));
        return page is null ? (BlockStatus.IoError, null, 0) : (BlockStatus.Okay, page, within % CountsPerPage);
    }

    /// <summary>
    /// Makes a block that the table has none of. It counts itself: it takes the first of the clusters that it is for,
    /// none of which is in use.
    /// </summary>
    public async ValueTask<BlockStatus> MakeBlockAsync(int block)
    {
        long cluster = (long)block * layout.RefcountsPerBlock;
        if (FindReserved(cluster, layout.RefcountsPerBlock) is BlockStatus fault) return fault;
        long offset = layout.OffsetOf(cluster);
        BlockStatus status = await space.ReserveAsync(offset + layout.ClusterSize);
        if (status == BlockStatus.Okay) status = await WriteBlockAsync(offset, used: 1);
        if (status != BlockStatus.Okay) return status;
        reserved.Add(cluster);
        Table[block] = (ulong)offset;
        space.Use(offset + layout.ClusterSize);
        return BlockStatus.Okay;
    }

    /// <summary>
    /// Makes a table that has room for a block. It lies behind all clusters that the smaller one counts, and behind the
    /// blocks that count both themselves and the table.
    /// </summary>
    public async ValueTask<BlockStatus> GrowAsync(long block)
    {
        int perCluster = layout.EntriesPerTable;
        int most = Math.Max(Qcow2Layout.MaxRefcountTableBytes, layout.ClusterSize) / layout.ClusterSize;
        int oldClusters = (Table.Count + perCluster - 1) / perCluster;
        int clusters = (int)Math.Min(Math.Max(2L * oldClusters, (block / perCluster) + 1), most);
        int blocks = (clusters + layout.RefcountsPerBlock - 2) / (layout.RefcountsPerBlock - 1);
        long first = (long)Table.Count * layout.RefcountsPerBlock;
        if (block >= (long)clusters * perCluster || Table.Count + blocks > clusters * perCluster)
        {
            corruption.Log($"cannot take more clusters: its table of reference counts has the largest size, {most} "
                + "clusters: convert it to larger clusters with 'ublkback image convert --cluster-size'");
            return BlockStatus.NoSpace;
        }

        if (FindReserved(first, blocks + clusters) is BlockStatus fault) return fault;
        long oldOffset = TableOffset;
        BlockStatus status = await WriteTableAsync(first, blocks, clusters);
        if (TableOffset == oldOffset) return status;
        for (int i = 0; i < blocks + clusters; i++) reserved.Add(first + i);
        for (int i = 0; i < oldClusters; i++) Unused.Add(layout.ClusterOf(oldOffset) + i);
        space.Use(layout.OffsetOf(first + blocks + clusters));
        return status;
    }

    private async ValueTask<BlockStatus> WriteTableAsync(long first, int blocks, int clusters)
    {
        long end = layout.OffsetOf(first + blocks + clusters);
        BlockStatus status = await space.ReserveAsync(end);
        ulong[] entries = new ulong[clusters * layout.EntriesPerTable];
        Table.Entries.CopyTo(entries);
        for (int i = 0; i < blocks && status == BlockStatus.Okay; i++)
        {
            entries[Table.Count + i] = (ulong)layout.OffsetOf(first + i);
            long used = blocks + clusters - ((long)i * layout.RefcountsPerBlock);
            status = await WriteBlockAsync(
                layout.OffsetOf(first + i), (int)Math.Clamp(used, 0, layout.RefcountsPerBlock));
        }

        if (status != BlockStatus.Okay) return status;
        DirtyTable larger = new(entries);
        Memory<byte> bytes = PinnedMemory.AllocatePages((int)layout.OffsetOf(clusters));
        for (int i = 0; i < bytes.Length / BlockRequest.SectorSize; i++)
            larger.CopySector(i, bytes.Span[(i * BlockRequest.SectorSize)..][..BlockRequest.SectorSize]);
        long offset = layout.OffsetOf(first + blocks);
        status = await file.WriteAsync(offset, bytes);
        if (status != BlockStatus.Okay) return status;
        await tables.EnterAsync();
        status = await MoveTableAsync(larger, offset, clusters);
        tables.Leave();
        return status;
    }

    private async ValueTask<BlockStatus> MoveTableAsync(DirtyTable larger, long offset, int clusters)
    {
        // What the old one has in memory only is in the larger one; so are the blocks that it names.
        BlockStatus status = await file.FlushAsync();
        if (status == BlockStatus.Okay) status = await header.SetRefcountTableAsync(offset, clusters);
        if (status != BlockStatus.Okay) return status;
        (Table, TableOffset) = (larger, offset);
        return await file.FlushAsync();
    }

    private ValueTask<BlockStatus> WriteBlockAsync(long offset, int used)
    {
        _block.Span.Clear();
        for (int i = 0; i < used; i++) Refcount.Set(_block.Span, i, layout.RefcountOrder, 1);
        return file.WriteAsync(offset, _block);
    }

    // Clusters that no block counts are free, unless the image is broken.
    private BlockStatus? FindReserved(long first, int count) => reserved.FindIn(first, count) is long cluster
        ? corruption.Report($"its cluster {cluster} holds a table, and no block counts it")
        : null;
}
