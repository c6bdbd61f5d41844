using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>Where an entry of level 2 is.</summary>
/// <param name="Status">Whether it could be found out.</param>
/// <param name="Page">The page that it is in; null when there is no table for it. It may be dropped at the caller's
/// next wait.</param>
/// <param name="Index">Its place in the page.</param>
internal readonly record struct EntryPlace(BlockStatus Status, MetadataPage? Page, int Index);

/// <summary>
/// Finds the entries of level 2, which say where the guest's clusters are, and makes the tables that they are in. On
/// the image's worker.
/// </summary>
[DataPath]
internal sealed class ClusterMap(
    Qcow2Layout layout, ContainerFile file, MetadataCache cache, ClusterAllocator allocator, ReservedClusters reserved,
    Corruption corruption, ulong[] l1, long diskSize)
{
    private const int CopyBytes = 64 << 10;

    private readonly LoopMutex _making = new();
    private Memory<byte> _copy;

    /// <summary>The table of level 1.</summary>
    public DirtyTable L1 { get; private set; } = new(l1);

    /// <summary>Bytes of the disk.</summary>
    public long DiskSize { get; set; } = diskSize;

    /// <summary>Clusters of the guest that level 1 has entries for; the disk may be smaller.</summary>
    public long Capacity => (long)L1.Count * layout.EntriesPerTable;

    /// <summary>Tables of level 2 that the file does not refer to any more once level 1 is written.</summary>
    public List<long> Unused { get; private set; } = [];

    /// <summary>Entries that a page holds.</summary>
    public int EntriesPerPage => cache.PageSize / Qcow2Layout.EntrySize;

    /// <summary>Finds the entry of a guest's cluster.</summary>
    public ValueTask<EntryPlace> FindAsync(long guestCluster)
    {
        if (!TryLocate(guestCluster, out long offset, out BlockStatus status))
            return new ValueTask<EntryPlace>(new EntryPlace(status, null, 0));
        int index = IndexInPage(guestCluster);
        return cache.TryGet(offset, out MetadataPage? page)
            ? new ValueTask<EntryPlace>(new EntryPlace(BlockStatus.Okay, page, index))
            : LoadAsync(offset, index);
    }

    /// <summary>
    /// Finds the entry of a guest's cluster, in a table that may be changed: makes it, or a copy of its own, if need
    /// be.
    /// </summary>
    public ValueTask<EntryPlace> FindToChangeAsync(long guestCluster) =>
        IsOwn(L1[L1IndexOf(guestCluster)]) ? FindAsync(guestCluster) : MakeTableAsync(guestCluster);

    /// <summary>Gives level 1 more entries, which are empty; the file has room for them.</summary>
    public void Enlarge(int count) => L1 = L1.Enlarge(count);

    /// <summary>Takes the tables that are not used any more.</summary>
    public List<long> TakeUnused() // on the path: a flush that commits tables
    {
        List<long> taken = Unused;
        Unused = [];
        return taken;
    }

    // A table that the image has, and shares with no snapshot.
    private static bool IsOwn(ulong entry) => (entry & L2Entry.CopiedFlag) != 0 && (entry & L2Entry.OffsetMask) != 0;

    private int L1IndexOf(long guestCluster) => (int)(guestCluster / layout.EntriesPerTable);

    private int IndexInPage(long guestCluster) => (int)(guestCluster % EntriesPerPage);

    private bool TryLocate(long guestCluster, out long offset, out BlockStatus status)
    {
        status = CheckTable(L1IndexOf(guestCluster), out offset);
        if (offset == 0 || status != BlockStatus.Okay) return false;
        offset += guestCluster % layout.EntriesPerTable / EntriesPerPage * cache.PageSize;
        return true;
    }

    // The place of a table of level 2, or 0 if there is none.
    private BlockStatus CheckTable(int index, out long offset)
    {
        ulong entry = L1[index];
        offset = (long)(entry & L2Entry.OffsetMask);
        bool isSound = (entry & ~(L2Entry.OffsetMask | L2Entry.CopiedFlag)) == 0
            && (offset == 0 || layout.IsTablePlace(offset, file.Length));
        // off the path: the image is corrupt
        return isSound ? BlockStatus.Okay : corruption.Report($"its entry {index} of level 1 is {entry:x16}");
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<EntryPlace> LoadAsync(long offset, int index)
    {
        MetadataPage? page = await cache.GetAsync(offset);
        return new EntryPlace(page is null ? BlockStatus.IoError : BlockStatus.Okay, page, index);
    }

    private async ValueTask<EntryPlace> MakeTableAsync(long guestCluster) // off the path: once for each table
    {
        int index = L1IndexOf(guestCluster);
        await _making.EnterAsync();
        BlockStatus status = IsOwn(L1[index]) ? BlockStatus.Okay : await MakeTableAtAsync(index);
        _making.Leave();
        return status == BlockStatus.Okay ? await FindAsync(guestCluster) : new EntryPlace(status, null, 0);
    }

    // Empty, or as the one that it shares with a snapshot: all of it is written before level 1 refers to it.
    private async ValueTask<BlockStatus> MakeTableAtAsync(int index) // off the path: once for each table
    {
        BlockStatus found = CheckTable(index, out long old);
        if (found != BlockStatus.Okay) return found;
        HostRun run = await allocator.AllocateAsync(1);
        if (run.Status != BlockStatus.Okay) return run.Status;
        if (_copy.IsEmpty) _copy = PinnedMemory.AllocatePages(Math.Min(CopyBytes, layout.ClusterSize));
        for (int at = 0; at < layout.ClusterSize; at += _copy.Length)
        {
            _copy.Span.Clear();
            BlockStatus status = old == 0 ? BlockStatus.Okay : await file.ReadAsync(old + at, _copy);
            if (status == BlockStatus.Okay) status = await file.WriteAsync(run.Offset + at, _copy);
            if (status == BlockStatus.Okay) continue;
            await allocator.ReleaseAsync(layout.ClusterOf(run.Offset));
            return status;
        }

        reserved.Add(layout.ClusterOf(run.Offset));
        L1[index] = (ulong)run.Offset | L2Entry.CopiedFlag;
        if (old != 0) Unused.Add(layout.ClusterOf(old));
        return BlockStatus.Okay;
    }
}
