using System.IO.Compression;
using System.Runtime.CompilerServices;
using Ublkback.Block;

namespace Ublkback.Images.Qcow2;

/// <summary>Reads what the guest sees, from wherever it is kept. On the image's worker.</summary>
internal sealed class ClusterReader(
    Qcow2Header header, ContainerFile file, ClusterMap map, IBlockImage? backing, CopyBuffers buffers, Corruption corruption)
{
    private readonly ImageAccess? _backing = backing is null ? null : new ImageAccess(backing);
    private readonly LoopGate _unpacking = new();
    private L2Entry _lastUnpacked; // sequential reads of less than a cluster unpack it once
    private Memory<byte> _unpacked;

    /// <summary>Whether there is something below that shows where this image has nothing.</summary>
    public bool HasBacking => backing is not null;

    private long BackingSize => backing is null ? 0 : (long)backing.Geometry.SectorCount * BlockRequest.SectorSize;

    /// <summary>Reads bytes; what lies behind the disk's end is zeros.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> ReadAsync(long offset, Memory<byte> buffer)
    {
        while (!buffer.IsEmpty)
        {
            EntryPlace place = await map.FindAsync(header.Layout.ClusterOf(offset));
            Extent extent = Extent.Find(place, header, offset, buffer.Length);
            if (extent.Kind == ClusterKind.Invalid) return corruption.Report(extent, offset);
            Memory<byte> piece = buffer[..extent.Length];
            BlockStatus status = extent.Kind switch
            {
                ClusterKind.Data => await file.ReadAsync(extent.HostOffset, piece),
                ClusterKind.Compressed => await UnpackAsync(extent.Entry, header.Layout.WithinCluster(offset), piece),
                ClusterKind.Unallocated when _backing is not null => await _backing.ReadAsync(offset, piece, BackingSize),
                _ => Clear(piece),
            };
            if (status != BlockStatus.Okay) return status;
            offset += extent.Length;
            buffer = buffer[extent.Length..];
        }

        return BlockStatus.Okay;
    }

    /// <summary>Tells how bytes are kept; in what lies below, too.</summary>
    public async ValueTask<SectorRange> MapAsync(long offset, long byteCount)
    {
        const int SectorSize = BlockRequest.SectorSize;
        EntryPlace place = await map.FindAsync(header.Layout.ClusterOf(offset));
        Extent extent = Extent.Find(place, header, offset, (int)Math.Min(byteCount, 1 << 30));
        long sectors = extent.Length / SectorSize;
        switch (extent.Kind)
        {
            case ClusterKind.Data or ClusterKind.Compressed:
                return new SectorRange(BlockStatus.Okay, sectors, 0, true, false, extent.Kind == ClusterKind.Data ? extent.HostOffset : null);
            case ClusterKind.Zero:
                return new SectorRange(BlockStatus.Okay, sectors, 0, true, true, null);
            case ClusterKind.Unallocated when backing is null || offset >= BackingSize:
                return new SectorRange(BlockStatus.Okay, sectors, 0, false, true, null);
            case ClusterKind.Unallocated:
                sectors = Math.Min(sectors, (BackingSize - offset) / SectorSize);
                SectorRange below = backing is IMappedImage mapped
                    ? await mapped.MapAsync((ulong)(offset / SectorSize), sectors)
                    : new SectorRange(BlockStatus.Okay, sectors, 0, true, false, offset);
                return below with { Depth = below.Depth + 1 };
            default:
                return new SectorRange(corruption.Report(extent, offset), 0, 0, false, false, null);
        }
    }

    /// <summary>Whether bytes of one cluster are zeros, as far as the tables tell.</summary>
    public bool IsZero(L2Entry entry, long offset) => entry.KindIn(header.Layout, header.Version) switch
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

    private async ValueTask<BlockStatus> UnpackAsync(L2Entry entry, int within, Memory<byte> to)
    {
        await _unpacking.EnterAsync();
        BlockStatus status = entry == _lastUnpacked ? BlockStatus.Okay : await UnpackAsync(entry);
        if (status == BlockStatus.Okay) _unpacked.Slice(within, to.Length).CopyTo(to);
        _unpacking.Leave();
        return status;
    }

    private async ValueTask<BlockStatus> UnpackAsync(L2Entry entry)
    {
        const int SectorSize = BlockRequest.SectorSize;
        (long offset, int length) = entry.CompressedRangeIn(header.Layout);
        long start = offset & ~(SectorSize - 1L);
        int skipped = (int)(offset - start);
        if (offset + 1 > file.Length) return BlockStatus.IoError;
        if (_unpacked.IsEmpty) _unpacked = new byte[header.Layout.ClusterSize];
        _lastUnpacked = default;
        Memory<byte> packed = await buffers.RentAsync((skipped + length + SectorSize - 1) & ~(SectorSize - 1));
        BlockStatus status = await file.ReadAsync(start, packed);
        if (status == BlockStatus.Okay)
        {
            bool isWhole = await Task.Run(() => TryUnpack(packed.Slice(skipped, length), _unpacked));
            if (isWhole) _lastUnpacked = entry;
            else status = corruption.Report($"the compressed cluster at {offset} cannot be unpacked");
        }

        buffers.Return(packed);
        return status;
    }

    private static bool TryUnpack(ReadOnlyMemory<byte> packed, Memory<byte> cluster)
    {
        try
        {
            using MemoryStream bytes = new(packed.ToArray());
            using DeflateStream unpacked = new(bytes, CompressionMode.Decompress);
            unpacked.ReadExactly(cluster.Span);
            return true;
        }
        catch (Exception failure) when (failure is InvalidDataException or EndOfStreamException)
        {
            return false;
        }
    }
}
