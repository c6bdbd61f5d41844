using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>Changes entries of level 2, and sees to it that the changes last. On the image's worker.</summary>
/// <param name="header">The image's header.</param>
/// <param name="file">What it is in.</param>
/// <param name="generation">Binds the log to the image.</param>
/// <param name="map">Finds entries.</param>
/// <param name="cache">Keeps what was changed.</param>
/// <param name="commit">Brings it into the file.</param>
/// <param name="log">Keeps changes beyond this process.</param>
/// <param name="corruption">Refuses changes of tables that overlap.</param>
/// <param name="bitmapClusters">What the first change frees: the header says from then on that bitmaps are not true.
/// </param>
/// <param name="commitsEach">Whether each change must be in the file before it is answered, since the log cannot be
/// believed later.</param>
internal sealed class ClusterLinks(
    Qcow2Header header, ContainerFile file, ImageGeneration generation, ClusterMap map, MetadataCache cache,
    MetadataCommit commit, MetadataLog log, Corruption corruption,
    IReadOnlyList<long> bitmapClusters, bool commitsEach)
{
    private static readonly TimeSpan CommitDelay = TimeSpan.FromSeconds(5);

    private Task<BlockStatus>? _preparing;
    private bool _isCommitDue;

    /// <summary>Whether there will be no more changes.</summary>
    public bool IsClosed { get; set; }

    /// <summary>Whether anything was to be changed since the file was complete in itself.</summary>
    public bool HasChanges => _preparing is not null || header.IsDirty;

    /// <summary>Before the first change: has the file say that it has changes of which others do not know.</summary>
    public ValueTask<BlockStatus> PrepareAsync()
    {
        if (_preparing is null or { IsCompletedSuccessfully: true, Result: not BlockStatus.Okay })
            _preparing = PrepareOnceAsync();
        return _preparing.IsCompletedSuccessfully
            ? new ValueTask<BlockStatus>(_preparing.Result)
            : new ValueTask<BlockStatus>(_preparing);
    }

    /// <summary>
    /// Gives neighbouring clusters of the guest, in one page, new entries: the first, and each next one a step more.
    /// The clusters are claimed. When it fails, they have the entries that they had.
    /// </summary>
    public async ValueTask<BlockStatus> LinkAsync(long first, int count, L2Entry entry, long step)
    {
        BlockStatus status = await PrepareAsync();
        if (status != BlockStatus.Okay) return status;
        EntryPlace place;
        while (true)
        {
            place = await map.FindToChangeAsync(first);
            if (place.Page is null) return place.Status == BlockStatus.Okay ? BlockStatus.IoError : place.Status;
            if (log.Room >= count && generation.IsCurrent) break;
            status = log.Room >= count ? await generation.BeginAsync() : await commit.RunAsync();
            if (status != BlockStatus.Okay) return status;
        }

        for (int i = 0; i < count; i++)
        {
            L2Entry changed = new(entry.Value + (ulong)(i * step));
            AddUnused(new L2Entry(place.Page[place.Index + i]));
            place.Page[place.Index + i] = changed.Value;
            log.Add(first + i, changed);
        }

        MetadataCache.MarkDirty(place.Page, cache.DirtyMappings);
        if (commitsEach) return BlockStatus.Okay;
        if (log.Room < MetadataLog.Capacity / 2 && commit.IsIdle) _ = commit.RunAsync();
        else if (!_isCommitDue) _ = CommitLaterAsync();
        return BlockStatus.Okay;
    }

    /// <summary>
    /// Before a request is answered: has the changes that its data needs last beyond this process, its own and those
    /// of requests before. When that fails, they stand all the same: the next commit brings them into the file.
    /// </summary>
    public ValueTask<BlockStatus> KeepAsync() => commitsEach && !commit.IsClean
        ? new ValueTask<BlockStatus>(commit.RunAsync())
        : new ValueTask<BlockStatus>(BlockStatus.Okay);

    /// <summary>
    /// Repeats the changes that an earlier process answered and that may not be in the file. A killed commit may have
    /// brought any of them there, the last one too, so each cluster of the guest gets its last entry at once.
    /// </summary>
    public async ValueTask<BlockStatus> RecoverAsync(ClusterAllocator allocator)
    {
        BlockStatus status = log.Room < MetadataLog.Capacity ? await PrepareAsync() : BlockStatus.Okay;
        Dictionary<long, L2Entry> last = [];
        HashSet<long> passing = []; // host clusters that entries of the log name
        // All are claimed first: a table that is created meanwhile must not take a cluster of a later entry.
        for (long number = log.Committed; number < log.Added && status == BlockStatus.Okay; number++)
        {
            (long cluster, L2Entry entry) = log[number];
            if (cluster < 0 || cluster >= map.Capacity) return BlockStatus.IoError;
            last[cluster] = entry;
            if (entry.HostOffset == 0) continue;
            long host = header.Layout.ClusterOf(entry.HostOffset);
            if (passing.Add(host)) status = await allocator.ClaimAsync(host, entry.IsCopied);
        }

        HashSet<long> used =
        [
            .. last.Values.Where(entry => entry.HostOffset != 0)
                .Select(entry => header.Layout.ClusterOf(entry.HostOffset)),
        ];
        passing.ExceptWith(used);
        foreach ((long cluster, L2Entry entry) in last)
        {
            if (status != BlockStatus.Okay) return status;
            EntryPlace place = await map.FindToChangeAsync(cluster);
            if (place.Page is null) return place.Status == BlockStatus.Okay ? BlockStatus.IoError : place.Status;
            L2Entry old = new(place.Page[place.Index]);
            if (old == entry) continue;
            ClusterKind kind = old.KindIn(header.Layout, header.Version);
            if (kind == ClusterKind.Compressed) AddUnused(old);
            else if (kind is ClusterKind.Data or ClusterKind.Zero && old.HostOffset != 0)
                passing.Add(header.Layout.ClusterOf(old.HostOffset));
            place.Page[place.Index] = entry.Value;
            MetadataCache.MarkDirty(place.Page, cache.DirtyMappings);
        }

        passing.ExceptWith(used);
        foreach (long host in passing) commit.AddUnused(host);
        return status;
    }

    private async Task<BlockStatus> PrepareOnceAsync()
    {
        BlockStatus status = corruption.ReportConflict();
        if (status != BlockStatus.Okay) return status;
        long whole = header.Layout.OffsetOf(header.Layout.ClustersFor(file.Length));
        if (file.CanGrow && file.Length < whole) status = await file.SetLengthAsync(whole);
        if (status == BlockStatus.Okay) status = await generation.SetDirtyAsync();
        if (status != BlockStatus.Okay) return status;
        foreach (long cluster in bitmapClusters) commit.AddUnused(cluster);
        bitmapClusters = [];
        return status;
    }

    private async Task CommitLaterAsync()
    {
        _isCommitDue = true;
        await BlockLoop.Current.DelayAsync(CommitDelay);
        _isCommitDue = false;
        if (!IsClosed) await commit.RunAsync();
    }

    private void AddUnused(L2Entry old)
    {
        switch (old.KindIn(header.Layout, header.Version))
        {
            case ClusterKind.Data or ClusterKind.Zero when old.HostOffset != 0:
                commit.AddUnused(header.Layout.ClusterOf(old.HostOffset));
                break;
            case ClusterKind.Compressed:
                (long offset, int length) = old.CompressedRangeIn(header.Layout);
                for (long cluster = header.Layout.ClusterOf(offset); cluster
                    <= header.Layout.ClusterOf(offset + length - 1); cluster++)
                    commit.AddUnused(cluster);
                break;
        }
    }
}
