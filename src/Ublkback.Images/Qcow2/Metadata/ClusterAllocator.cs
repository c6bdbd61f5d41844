using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// Gives out clusters that have a reference count of none, and takes them back. On the image's worker; one allocation
/// at a time.
/// </summary>
/// <remarks>
/// In memory a count is never lower than what the file's tables, or changes that wait to be written to them, need. So
/// counts may be written at any moment; a crash leaves counts that are too high at worst.
/// </remarks>
internal sealed class ClusterAllocator(
    Qcow2Layout layout, ContainerFile file, FileSpace space, MetadataCache cache, RefcountBlocks blocks,
    ReservedClusters reserved, Corruption corruption)
{
    private readonly LoopMutex _turns = new();
    private long _next; // no cluster below it is free

    /// <summary>Takes up to a number of neighbouring clusters, with a count of 1.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<HostRun> AllocateAsync(int most)
    {
        await _turns.EnterAsync();
        HostRun run = corruption.IsFound ? new HostRun(BlockStatus.IoError) : await FindAsync(most);
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
            (_, MetadataPage? page, int index) = await blocks.FindPageAsync(first);
            if (page is null) return false;
            int together = Math.Min(count, blocks.CountsPerPage - index);
            int unused = 0;
            while (unused < together && blocks.CountAt(page, index + unused) == 1) unused++;
            isFree = unused > 0;
            if (isFree)
            {
                await file.FreeAsync(layout.OffsetOf(first), layout.OffsetOf(unused)); // that it fails costs space only
                (_, page, index) = await blocks.FindPageAsync(first);
                if (page is null) return false;
            }

            int done = Math.Max(unused, 1);
            for (int i = 0; i < done; i++)
            {
                ulong old = blocks.CountAt(page, index + i);
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
    /// <param name="cluster">Which cluster.</param>
    /// <param name="isAlone">True if nothing else refers to it: a higher count is of an earlier use.</param>
    public async ValueTask<BlockStatus> ClaimAsync(long cluster, bool isAlone)
    {
        if (blocks.BlockOf(cluster) >= blocks.Table.Count) return BlockStatus.IoError;
        (BlockStatus status, MetadataPage? page, int index) = await blocks.FindPageAsync(cluster);
        if (status != BlockStatus.Okay) return status;
        if (page is null)
        {
            status = await blocks.MakeBlockAsync((int)blocks.BlockOf(cluster));
            if (status != BlockStatus.Okay) return status;
            (status, page, index) = await blocks.FindPageAsync(cluster);
            if (page is null) return BlockStatus.IoError;
        }

        ulong count = blocks.CountAt(page, index);
        if (count == 1 || (count > 1 && !isAlone)) return BlockStatus.Okay;
        Refcount.Set(page.Data.Span, index, layout.RefcountOrder, 1);
        MetadataCache.MarkDirty(page, cache.DirtyRefcounts);
        return BlockStatus.Okay;
    }

    private async ValueTask<HostRun> FindAsync(int most)
    {
        while (true)
        {
            long at = _next;
            long end = layout.OffsetOf(at + 1);
            BlockStatus grown = space.Reaches(end) ? BlockStatus.Okay : await space.ReserveAsync(end);
            if (grown != BlockStatus.Okay) return new HostRun(grown);
            long block = blocks.BlockOf(at);
            if (block >= blocks.Table.Count)
            {
                grown = await blocks.GrowAsync(block);
                if (grown != BlockStatus.Okay) return new HostRun(grown);
                continue;
            }

            (BlockStatus status, MetadataPage? page, int index) = await blocks.FindPageAsync(at);
            if (status == BlockStatus.Okay && page is null) status = await blocks.MakeBlockAsync((int)block);
            if (status != BlockStatus.Okay) return new HostRun(status);
            if (page is null || _next != at) continue; // a cluster before was freed meanwhile

            int counts = blocks.CountsPerPage;
            long pageStart = at - index;
            while (index < counts && blocks.CountAt(page, index) != 0) index++;
            _next = pageStart + index;
            if (index == counts || !space.Reaches(layout.OffsetOf(_next + 1))) continue;
            return await TakeAsync(page, index, Math.Min(most, counts - index));
        }
    }

    private async ValueTask<HostRun> TakeAsync(MetadataPage page, int index, int most)
    {
        long first = _next;
        int count = 1;
        bool isFresh = first >= space.FreshFrom;
        while (count < most && blocks.CountAt(page, index + count) == 0
            && space.Reaches(layout.OffsetOf(first + count + 1))) count++;
        for (int i = 0; i < count; i++)
        {
            if (reserved.Contains(first + i))
                return new HostRun(corruption.Report($"its cluster {first + i} holds a table, and is counted as free"));
        }

        long end = layout.OffsetOf(first + count);
        if (end > file.Length)
        {
            BlockStatus grown = await space.ReserveAsync(end);
            if (grown != BlockStatus.Okay) return new HostRun(grown);
            (_, MetadataPage? again, _) = await blocks.FindPageAsync(first);
            if (again is null) return new HostRun(BlockStatus.IoError);
            page = again;
        }

        for (int i = 0; i < count; i++) Refcount.Set(page.Data.Span, index + i, layout.RefcountOrder, 1);
        MetadataCache.MarkDirty(page, cache.DirtyRefcounts);
        if (_next == first) _next = first + count;
        space.Use(end);
        return new HostRun(BlockStatus.Okay, layout.OffsetOf(first), count, isFresh);
    }
}
