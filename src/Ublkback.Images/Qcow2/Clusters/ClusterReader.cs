using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Qcow2.Metadata;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2.Clusters;

/// <summary>Reads what the guest sees, from wherever it is kept. On the image's worker.</summary>
[DataPath]
internal sealed class ClusterReader
{
    private readonly Qcow2Header _header;
    private readonly ContainerFile _file;
    private readonly ClusterMap _map;
    private readonly Corruption _corruption;
    private readonly IBlockImage? _backing;
    private readonly ImageAccess? _backingAccess;
    private readonly ClusterReader? _below; // of a backing image of this kind: it is asked without a request in between
    private readonly LoopMutex _unpacking = new();
    private L2Entry _lastUnpacked; // sequential reads of less than a cluster unpack it once
    private Memory<byte> _unpacked;
    private Memory<byte> _packed;

    public ClusterReader(
        Qcow2Header header, ContainerFile file, ClusterMap map, IBlockImage? backing, ClusterReader? below,
        Corruption corruption)
    {
        _header = header;
        _file = file;
        _map = map;
        _corruption = corruption;
        _backing = backing;
        _backingAccess = backing is null ? null : new ImageAccess(backing);
        _below = below;
        BackingSize = backing is null ? 0 : (long)backing.Geometry.SectorCount * BlockRequest.SectorSize;
    }

    /// <summary>Whether there is something below that shows where this image has nothing.</summary>
    public bool HasBacking => _backing is not null;

    /// <summary>Bytes of what lies below; 0 for nothing.</summary>
    public long BackingSize { get; }

    /// <summary>Reads bytes; what lies behind the disk's end is zeros.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> ReadAsync(long offset, Memory<byte> buffer)
    {
        while (!buffer.IsEmpty)
        {
            ClusterReader reader = this;
            Extent extent = Extent.Find(
                await _map.FindAsync(_header.Layout.ClusterOf(offset)), _header, offset, buffer.Length);
            while (extent.Kind == ClusterKind.Unallocated && reader._below is ClusterReader below
                && offset < reader.BackingSize)
            {
                int most = (int)Math.Min(extent.Length, reader.BackingSize - offset);
                reader = below;
                extent = Extent.Find(
                    await reader._map.FindAsync(reader._header.Layout.ClusterOf(offset)), reader._header, offset, most);
            }

            if (extent.Kind == ClusterKind.Invalid) return extent.ReportTo(reader._corruption, offset);
            Memory<byte> piece = buffer[..extent.Length];
            BlockStatus status = extent.Kind switch
            {
                ClusterKind.Data => await reader._file.ReadAsync(extent.HostOffset, piece),
                ClusterKind.Compressed =>
                    await reader.UnpackAsync(extent.Entry, reader._header.Layout.WithinCluster(offset), piece),
                ClusterKind.Unallocated when reader._backingAccess is ImageAccess access =>
                    await access.ReadAsync(offset, piece, reader.BackingSize),
                _ => Clear(piece),
            };
            if (status != BlockStatus.Okay) return status;
            offset += extent.Length;
            buffer = buffer[extent.Length..];
        }

        return BlockStatus.Okay;
    }

    /// <summary>Tells how bytes are kept; in what lies below, too.</summary>
    public async ValueTask<SectorRange> MapAsync(long offset, long byteCount) // off the path: a map
    {
        const int SectorSize = BlockRequest.SectorSize;
        EntryPlace place = await _map.FindAsync(_header.Layout.ClusterOf(offset));
        Extent extent = Extent.Find(place, _header, offset, (int)Math.Min(byteCount, 1 << 30));
        long sectors = extent.Length / SectorSize;
        switch (extent.Kind)
        {
            case ClusterKind.Data or ClusterKind.Compressed:
                return new SectorRange(
                    BlockStatus.Okay, sectors, 0, true, false,
                    extent.Kind == ClusterKind.Data ? extent.HostOffset : null);
            case ClusterKind.Zero:
                return new SectorRange(BlockStatus.Okay, sectors, 0, true, true, null);
            case ClusterKind.Unallocated when _backing is null || offset >= BackingSize:
                return new SectorRange(BlockStatus.Okay, sectors, 0, false, true, null);
            case ClusterKind.Unallocated:
                sectors = Math.Min(sectors, (BackingSize - offset) / SectorSize);
                SectorRange below = _backing is IAllocationMap mapped
                    ? await mapped.MapAsync((ulong)(offset / SectorSize), sectors)
                    : new SectorRange(BlockStatus.Okay, sectors, 0, true, false, offset);
                return below with { Depth = below.Depth + 1 };
            default:
                return new SectorRange(extent.ReportTo(_corruption, offset), 0, 0, false, false, null);
        }
    }

    /// <summary>Whether bytes of one cluster are zeros, as far as the tables tell.</summary>
    public bool IsZero(L2Entry entry, long offset) => entry.KindIn(_header.Layout, _header.Version) switch
    {
        ClusterKind.Zero => true,
        ClusterKind.Unallocated => offset >= BackingSize,
        _ => false,
    };

    private static BlockStatus Clear(Memory<byte> buffer)
    {
        buffer.Span.Clear();
        return BlockStatus.Okay;
    }

    // on the path: a read of a compressed cluster waits
    private async ValueTask<BlockStatus> UnpackAsync(L2Entry entry, int within, Memory<byte> to)
    {
        await _unpacking.EnterAsync();
        BlockStatus status = entry == _lastUnpacked ? BlockStatus.Okay : await UnpackAsync(entry);
        if (status == BlockStatus.Okay) _unpacked.Slice(within, to.Length).CopyTo(to);
        _unpacking.Leave();
        return status;
    }

    // on the path: a helper thread unpacks a compressed cluster
    private async ValueTask<BlockStatus> UnpackAsync(L2Entry entry)
    {
        const int SectorSize = BlockRequest.SectorSize;
        (long offset, int length) = entry.CompressedRangeIn(_header.Layout);
        long start = offset & ~(SectorSize - 1L);
        int skipped = (int)(offset - start);
        if (offset >= _file.Length)
            return _corruption.ReportData($"has a compressed cluster at {offset}, behind the file's end");
        if (_unpacked.IsEmpty) _unpacked = new byte[_header.Layout.ClusterSize];
        // Memory of its own: who waits for this may hold all that there is for copies.
        if (_packed.IsEmpty) _packed = PinnedMemory.AllocatePages((2 * _header.Layout.ClusterSize) + (2 * SectorSize));
        _lastUnpacked = default;
        Memory<byte> packed = _packed[..((skipped + length + SectorSize - 1) & ~(SectorSize - 1))];
        BlockStatus status = await _file.ReadAsync(start, packed);
        if (status == BlockStatus.Okay)
        {
            bool isWhole = await Task.Run(
                () => CompressedCluster.TryUnpack(packed.Slice(skipped, length), _unpacked, _header.Compression));
            if (isWhole) _lastUnpacked = entry;
            else status = _corruption.ReportData($"has a compressed cluster at {offset} that cannot be unpacked");
        }

        return status;
    }
}
