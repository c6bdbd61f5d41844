using Ublkback.Block;
using Ublkback.Images.Common;
using Ublkback.Images.Qcow2.Format;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// Brings changes of an image's tables into its file, in an order in which a loss of power at any moment leaves an
/// image that is right, or counts a few clusters too much. On the image's worker; one at a time.
/// </summary>
/// <remarks>
/// First what is pointed to: the guest's data is written before its entry of level 2 changes, and new tables before
/// level 1 does; then reference counts, and a flush makes all of it durable; the table of count blocks has one more
/// flush, being seldom changed. Then what points to it: level 2 and level 1, in any order, since a new table of level 2
/// is empty or a copy until its entries come; and a flush again. Only now are clusters given back that were pointed to
/// before, when also the requests have ended that may have looked them up.
/// </remarks>
internal sealed class MetadataCommit(
    Qcow2Layout layout, ContainerFile file, HeaderFile header, MetadataCache cache, RefcountBlocks blocks,
    ClusterAllocator allocator, ClusterMap map, MetadataLog log, ImageGeneration generation, ReservedClusters reserved,
    RequestQuiescence epochs, LoopMutex tables, Corruption corruption)
{
    private const int MaxWritesUnderWay = 16;

    private readonly Queue<Task<BlockStatus>> _writes = new();
    private Task<BlockStatus> _running = Task.FromResult(BlockStatus.Okay);
    private Task<BlockStatus>? _next;
    private List<long> _unused = [];

    /// <summary>Whether everything is in the file, and durable if it was flushed.</summary>
    public bool IsClean => IsIdle && cache.DirtyMappings.Count == 0 && cache.DirtyRefcounts.Count == 0
        && map.L1.IsClean && blocks.Table.IsClean;

    /// <summary>Whether none is under way.</summary>
    public bool IsIdle => _running.IsCompleted;

    /// <summary>A cluster of data is pointed to no longer, once what is changed now is in the file.</summary>
    public void AddUnused(long cluster) => _unused.Add(cluster);

    /// <summary>Has all changes up to now in the file, durable; with other callers' changes.</summary>
    public Task<BlockStatus> RunAsync()
    {
        if (_running.IsCompleted) return _running = CommitAsync();
        return _next ??= AfterAsync(_running);
    }

    /// <summary>Waits until clusters that are not used any more are given back, at the end.</summary>
    public Task Releasing { get; private set; } = Task.CompletedTask;

    /// <summary>Waits until nothing is under way, when nobody begins anything any more.</summary>
    public async Task EndAsync()
    {
        while (!IsIdle || !Releasing.IsCompleted)
        {
            await _running;
            await Releasing;
        }
    }

    private async Task<BlockStatus> AfterAsync(Task<BlockStatus> before)
    {
        await before;
        _next = null;
        return await (_running = CommitAsync());
    }

    private async Task<BlockStatus> CommitAsync()
    {
        await tables.EnterAsync();
        long logEnd = log.Added;
        List<(MetadataPage Page, Memory<byte> Copy)> mappings = Freeze();
        List<(int Sector, Memory<byte> Content)> l1 = map.L1.TakeDirty();
        List<(int Sector, Memory<byte> Content)> places = blocks.Table.TakeDirty();
        List<long> unusedTables = map.TakeUnused();
        unusedTables.AddRange(blocks.Unused);
        blocks.Unused.Clear();
        (List<long> unused, _unused) = (_unused, []);

        BlockStatus status = await header.EnsureAsync();
        if (status == BlockStatus.Okay) status = await WriteRefcountsAsync();
        if (status == BlockStatus.Okay) status = await file.FlushAsync();
        if (status == BlockStatus.Okay && places.Count > 0)
        {
            status = await WriteSectorsAsync(blocks.TableOffset, places);
            if (status == BlockStatus.Okay) status = await file.FlushAsync();
        }

        if (status == BlockStatus.Okay && mappings.Count + l1.Count > 0)
        {
            foreach ((MetadataPage page, Memory<byte> copy) in mappings)
            {
                BlockStatus written = await WriteSoonAsync(page.Offset, copy);
                if (status == BlockStatus.Okay) status = written;
            }

            status = await EndWritesAsync(status);
            if (status == BlockStatus.Okay) status = await WriteSectorsAsync(L1Offset, l1);
            if (status == BlockStatus.Okay) status = await generation.EndAsync();
            if (status == BlockStatus.Okay) status = await file.FlushAsync();
        }

        Thaw(mappings, isWritten: status == BlockStatus.Okay);
        tables.Leave();
        if (status != BlockStatus.Okay)
        {
            map.L1.GiveBack(l1);
            blocks.Table.GiveBack(places);
            unused.AddRange(_unused);
            _unused = unused;
            map.Unused.AddRange(unusedTables);
        }
        else
        {
            log.Committed = logEnd;
            if (unused.Count + unusedTables.Count > 0) Releasing = ReleaseAsync(Releasing, unused, unusedTables);
        }

        return status;
    }

    /// <summary>Where level 1 is.</summary>
    public required long L1Offset { get; set; }

    // What points must not be written with changes that come later: what they point to may not be durable.
    private List<(MetadataPage Page, Memory<byte> Copy)> Freeze()
    {
        List<(MetadataPage, Memory<byte>)> frozen = new(cache.DirtyMappings.Count);
        foreach (MetadataPage page in cache.DirtyMappings)
        {
            frozen.Add((page, cache.RentCopy(page)));
            page.IsDirty = false;
            page.Writers++;
        }

        cache.DirtyMappings.Clear();
        return frozen;
    }

    private void Thaw(List<(MetadataPage Page, Memory<byte> Copy)> frozen, bool isWritten)
    {
        foreach ((MetadataPage page, Memory<byte> copy) in frozen)
        {
            cache.Return(copy);
            page.Writers--;
            if (!isWritten) MetadataCache.MarkDirty(page, cache.DirtyMappings);
        }
    }

    // Counts may be written with later changes too.
    private async ValueTask<BlockStatus> WriteRefcountsAsync()
    {
        MetadataPage[] pages = [.. cache.DirtyRefcounts];
        cache.DirtyRefcounts.Clear();
        BlockStatus status = BlockStatus.Okay;
        foreach (MetadataPage page in pages)
        {
            page.IsDirty = false;
            page.Writers++;
            BlockStatus written = await WriteSoonAsync(page.Offset, page.Data);
            if (status == BlockStatus.Okay) status = written;
        }

        status = await EndWritesAsync(status);
        foreach (MetadataPage page in pages)
        {
            page.Writers--;
            if (status != BlockStatus.Okay) MetadataCache.MarkDirty(page, cache.DirtyRefcounts);
        }

        return status;
    }

    private async ValueTask<BlockStatus> WriteSectorsAsync(
        long offset, List<(int Sector, Memory<byte> Content)> sectors)
    {
        BlockStatus status = BlockStatus.Okay;
        foreach ((int sector, Memory<byte> content) in sectors)
        {
            BlockStatus written = await WriteSoonAsync(offset + ((long)sector * BlockRequest.SectorSize), content);
            if (status == BlockStatus.Okay) status = written;
        }

        return await EndWritesAsync(status);
    }

    // Begins a write; the status is that of one that has ended meanwhile.
    private async ValueTask<BlockStatus> WriteSoonAsync(long offset, Memory<byte> data)
    {
        _writes.Enqueue(file.WriteAsync(offset, data).AsTask());
        return _writes.Count < MaxWritesUnderWay ? BlockStatus.Okay : await _writes.Dequeue();
    }

    private async ValueTask<BlockStatus> EndWritesAsync(BlockStatus status)
    {
        while (_writes.TryDequeue(out Task<BlockStatus>? write))
        {
            BlockStatus ended = await write;
            if (status == BlockStatus.Okay) status = ended;
        }

        return status;
    }

    private async Task ReleaseAsync(Task before, List<long> clusters, List<long> unusedTables)
    {
        await before;
        await epochs.DrainAsync();
        foreach (long cluster in unusedTables)
        {
            cache.Forget(layout.OffsetOf(cluster), layout.ClusterSize);
            if (await allocator.ReleaseAsync(cluster)) reserved.Remove(cluster);
        }

        // What fails stays counted, and so do tables that the guest's entries pointed to.
        if (clusters.RemoveAll(reserved.Contains) > 0)
            corruption.Report("a cluster of the guest was one that holds a table");
        clusters.Sort();
        for (int first = 0, next; first < clusters.Count; first = next)
        {
            next = first + 1;
            while (next < clusters.Count && clusters[next] == clusters[next - 1] + 1) next++;
            await allocator.ReleaseAsync(clusters[first], next - first);
        }
    }
}
