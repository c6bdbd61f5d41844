using Ublkback.Block;
using Ublkback.Images.Common;
using Ublkback.Images.Qcow2.Clusters;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Qcow2.Metadata;

namespace Ublkback.Images.Qcow2;

/// <summary>What an open image is made of, put together by hand.</summary>
internal sealed class Qcow2Parts : IAsyncDisposable
{
    private readonly IBlockImage? _backing;
    private readonly MetadataCache _cache;
    private readonly ImageScratch _buffers = new();

    /// <summary>Puts an image together.</summary>
    /// <param name="tables">The header, and the tables that are in memory as a whole.</param>
    /// <param name="file">What the image is in; owned.</param>
    /// <param name="backing">What shows where the image has nothing; owned.</param>
    /// <param name="below">Reads a backing image of this format without a request in between.</param>
    /// <param name="log">The changes that are not in the file; owned.</param>
    /// <param name="path">The image's name in messages.</param>
    /// <param name="isReadOnly">Whether nothing is written to it.</param>
    /// <param name="warn">Takes messages.</param>
    public Qcow2Parts(
        Qcow2Tables tables, ContainerFile file, IBlockImage? backing, ClusterReader? below, MetadataLog log,
        string path, bool isReadOnly, Action<string> warn)
    {
        Qcow2Header header = tables.Header;
        File = file;
        Log = log;
        _backing = backing;
        ReservedClusters reserved = tables.FindReserved(out string? conflict);
        LoopMutex gate = new();
        _cache = new MetadataCache(file, header.Layout, tables.BytesInUse);
        HeaderFile = new HeaderFile(file, header, tables.FirstSector);
        Corruption = new Corruption(path, header.IsCorrupt || isReadOnly ? null : HeaderFile, warn, conflict);
        Space = new FileSpace(header.Layout, file, Corruption);
        RefcountBlocks blocks = new(
            header.Layout, file, Space, _cache, reserved, HeaderFile, gate, Corruption, tables.RefcountTable,
            header.RefcountTableOffset);
        Allocator = new ClusterAllocator(header.Layout, file, Space, _cache, blocks, reserved, Corruption);
        ClusterMap map = new(
            header.Layout, file, _cache, Allocator, reserved, Corruption, tables.L1, header.VirtualSize);
        Reader = new ClusterReader(header, file, map, backing, below, Corruption);
        ImageGeneration generation = new(header, HeaderFile, log);
        Commit = new MetadataCommit(
            header.Layout, file, HeaderFile, _cache, blocks, Allocator, map, log, generation, reserved, Epochs, gate,
            Corruption)
        { L1Offset = header.L1Offset };
        Links = new ClusterLinks(
            header, file, generation, map, _cache, Commit, log, Corruption, tables.BitmapClusters,
            commitsEach: log.IsKept && header.Version < 3);
        Writer = new ClusterWriter(header, file, map, Allocator, Reader, Links, reserved, _buffers, Corruption);
        Resizer = new Resizer(
            header, file, HeaderFile, map, Allocator, blocks, Reader, Writer, Links, Commit, reserved, gate);
    }

    /// <summary>What the image is in.</summary>
    public ContainerFile File { get; }

    /// <summary>The header in the file.</summary>
    public HeaderFile HeaderFile { get; }

    /// <summary>The space for clusters.</summary>
    public FileSpace Space { get; }

    /// <summary>Knows which clusters of the file are free.</summary>
    public ClusterAllocator Allocator { get; }

    /// <summary>Serves reads.</summary>
    public ClusterReader Reader { get; }

    /// <summary>Serves writes and discards.</summary>
    public ClusterWriter Writer { get; }

    /// <summary>Changes where the guest's clusters are.</summary>
    public ClusterLinks Links { get; }

    /// <summary>Changes the disk's size.</summary>
    public Resizer Resizer { get; }

    /// <summary>Brings changes into the file.</summary>
    public MetadataCommit Commit { get; }

    /// <summary>Keeps changes beyond this process.</summary>
    public MetadataLog Log { get; }

    /// <summary>Knows when requests have ended.</summary>
    public RequestQuiescence Epochs { get; } = new();

    /// <summary>Takes notice of what is broken.</summary>
    public Corruption Corruption { get; }

    /// <summary>Closes all. No request is under way. Any thread.</summary>
    public async ValueTask DisposeAsync()
    {
        await File.DisposeAsync().ConfigureAwait(false);
        if (_backing is not null) await _backing.DisposeAsync().ConfigureAwait(false);
        _cache.Dispose();
        _buffers.Dispose();
        Log.Dispose();
    }
}
