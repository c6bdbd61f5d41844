using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// The pages of an image's tables that are in memory: those used last, and all that have changes which are not in the
/// file yet. On the image's worker.
/// </summary>
/// <remarks>
/// It drops pages by the second-chance rule. Changed pages are never dropped; who changes them has a bound on their
/// number (<see cref="MetadataLog.Capacity"/>), so the cache exceeds its size by no more than that.
/// </remarks>
[DataPath]
internal sealed class MetadataCache : IDisposable
{
    /// <summary>Bytes in a page, unless clusters are smaller.</summary>
    public const int MaxPageSize = 4096;

    /// <summary>Most bytes of unchanged pages that are kept: the tables of 256 GiB in clusters of 64 KiB.</summary>
    public const long MaxBytes = 32 << 20;

    private const int MinPages = 16;

    private readonly ContainerFile _file;
    private readonly BufferPool _memory;
    private readonly int _maxPages;
    private readonly Dictionary<long, MetadataPage> _pages = [];
    private readonly Queue<MetadataPage> _byAge = new();
    private readonly LoopCondition _loaded = new();

    /// <summary>Makes a cache.</summary>
    /// <param name="file">What the tables are in.</param>
    /// <param name="layout">The image's clusters.</param>
    /// <param name="tableBytes">What all tables that are used every day have together.</param>
    public MetadataCache(ContainerFile file, Qcow2Layout layout, long tableBytes)
    {
        _file = file;
        PageSize = Math.Min(MaxPageSize, layout.ClusterSize);
        _maxPages = (int)Math.Clamp(tableBytes / PageSize, MinPages, MaxBytes / PageSize);
        // For each change a page of level 2 and its copy, and counts of clusters that are taken, given back, and given
        // back before.
        long most = (_maxPages + (5L * MetadataLog.Capacity)) * MemoryMapping.PageSize;
        _memory = new BufferPool((long)System.Numerics.BitOperations.RoundUpToPowerOf2((ulong)most));
    }

    /// <summary>Bytes in a page.</summary>
    public int PageSize { get; }

    /// <summary>The pages with changes, of level 2.</summary>
    public List<MetadataPage> DirtyMappings { get; } = [];

    /// <summary>The pages with changes, of reference counts.</summary>
    public List<MetadataPage> DirtyRefcounts { get; } = [];

    /// <summary>The page that holds a byte of the file, if it is there already.</summary>
    public bool TryGet(long offset, out MetadataPage? page)
    {
        if (!_pages.TryGetValue(offset & ~(PageSize - 1L), out page) || !page.IsLoaded) return false;
        page.IsUsed = true;
        return true;
    }

    /// <summary>
    /// The page that holds a byte of the file; null when it cannot be read. It may be dropped at the caller's next
    /// wait.
    /// </summary>
    public ValueTask<MetadataPage?> GetAsync(long offset) =>
        TryGet(offset, out MetadataPage? page)
            ? new ValueTask<MetadataPage?>(page)
            : LoadAsync(offset & ~(PageSize - 1L));

    /// <summary>A page of a table was changed.</summary>
    public static void MarkDirty(MetadataPage page, List<MetadataPage> dirty)
    {
        if (page.IsDirty) return;
        page.IsDirty = true;
        dirty.Add(page);
    }

    /// <summary>A cluster is no table any more: what is in memory of it is not true when it is one again.</summary>
    public void Forget(long offset, int length)
    {
        for (long at = offset; at < offset + length; at += PageSize)
        {
            if (_pages.Remove(at, out MetadataPage? page)) page.HasFailed = true;
        }
    }

    /// <summary>Takes memory for a copy of a page.</summary>
    public Memory<byte> RentCopy(MetadataPage page)
    {
        Memory<byte> copy = Rent();
        page.Data.CopyTo(copy);
        return copy;
    }

    /// <summary>Gives the memory of a copy back.</summary>
    public void Return(Memory<byte> copy) => _memory.Return(copy);

    /// <inheritdoc/>
    public void Dispose() => _memory.Dispose();

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<MetadataPage?> LoadAsync(long offset)
    {
        MetadataPage? page;
        while (_pages.TryGetValue(offset, out page))
        {
            // Who waited for somebody else's reading looks again: it may have been dropped since.
            if (page.IsLoaded) return page;
            await _loaded.WaitAsync();
            if (page.HasFailed) return null;
        }

        MakeRoom();
        page = new MetadataPage(offset, Rent()); // on the path: the cache does not have the page
        _pages.Add(offset, page);
        BlockStatus status = await _file.ReadAsync(offset, page.Data);
        if (status == BlockStatus.Okay)
        {
            page.IsLoaded = true;
            page.IsUsed = true;
            _byAge.Enqueue(page);
        }
        else
        {
            page.HasFailed = true;
            _pages.Remove(offset);
            _memory.Return(page.Data);
        }

        _loaded.WakeAll();
        return page.HasFailed ? null : page;
    }

    private void MakeRoom()
    {
        for (int looks = 2 * _byAge.Count; looks > 0 && _byAge.Count >= _maxPages; looks--)
        {
            MetadataPage page = _byAge.Dequeue();
            if (!page.HasFailed && (page.IsUsed || page.IsDirty || page.Writers > 0))
            {
                page.IsUsed = false;
                _byAge.Enqueue(page);
                continue;
            }

            if (!page.HasFailed) _pages.Remove(page.Offset);
            _memory.Return(page.Data);
        }
    }

    private Memory<byte> Rent() => _memory.TryRent(PageSize, out Memory<byte> data)
        ? data
        : throw new InvalidOperationException("more pages of tables were changed than a log has room for");
}
