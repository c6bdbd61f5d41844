using Ublkback.Block;

namespace Ublkback.ImageTools;

/// <summary>Copies what an image holds into another, leaving out zeros where the other is empty. On a worker.</summary>
/// <param name="from">What is read.</param>
/// <param name="to">What is written; as large.</param>
/// <param name="isEmpty">Whether the other reads as zeros everywhere.</param>
/// <param name="compares">Whether the other is read first, and only what differs is written.</param>
/// <param name="onProgress">Takes bytes that have been dealt with.</param>
internal sealed class Converter(IBlockImage from, IBlockImage to, bool isEmpty, bool compares, Action<int> onProgress)
{
    /// <summary>Bytes of a request.</summary>
    public const int ChunkBytes = 1 << 20;

    private const int MaxUnderWay = 8;
    private const int PieceBytes = 4096; // unit in which zeros are left out

    private readonly RequestPool _requests = new();
    private readonly ulong _sectorCount = from.Geometry.SectorCount;
    private ulong _next;
    private BlockStatus _status = BlockStatus.Okay;

    /// <summary>Bytes that were written.</summary>
    public long Written { get; private set; }

    /// <summary>Whether sectors are left out that the image itself does not have, but something below it.</summary>
    public bool LeavesOutAbsent { get; init; }

    // What is known without reading it: what something below has, or zeros that the other has already.
    private IAllocationMap? Map => LeavesOutAbsent || isEmpty ? from as IAllocationMap : null;

    /// <summary>Copies everything, and makes it durable.</summary>
    public async Task<BlockStatus> RunAsync()
    {
        await Task.WhenAll(Enumerable.Range(0, MaxUnderWay).Select(_ => CopyChunksAsync()));
        return _status == BlockStatus.Okay ? await RunAsync(to, BlockOperation.Flush, 0, 0) : _status;
    }

    private async Task CopyChunksAsync()
    {
        const int ChunkSectors = ChunkBytes / BlockRequest.SectorSize;
        while (_next < _sectorCount && _status == BlockStatus.Okay)
        {
            ulong sector = _next;
            long count = (long)Math.Min(ChunkSectors, _sectorCount - sector);
            _next += (ulong)count;
            BlockStatus status = Map is IAllocationMap map
                ? await CopyWantedAsync(map, sector, count)
                : await CopyAsync(sector, count);
            if (status != BlockStatus.Okay) _status = status;
            onProgress((int)count * BlockRequest.SectorSize);
        }
    }

    private async Task<BlockStatus> CopyWantedAsync(IAllocationMap image, ulong sector, long count)
    {
        while (count > 0)
        {
            SectorRange range = await image.MapAsync(sector, count);
            bool isWanted = LeavesOutAbsent ? range.IsPresent && range.Depth == 0 : !range.IsZero;
            if (range.Status == BlockStatus.Okay && isWanted)
                range = range with { Status = await CopyAsync(sector, range.SectorCount) };
            if (range.Status != BlockStatus.Okay) return range.Status;
            sector += (ulong)range.SectorCount;
            count -= range.SectorCount;
        }

        return BlockStatus.Okay;
    }

    private async Task<BlockStatus> CopyAsync(ulong sector, long count)
    {
        BlockRequest source = _requests.Rent(BlockOperation.Read, sector, count);
        BlockRequest? old = compares ? _requests.Rent(source) : null;
        BlockStatus status = await from.HandleAsync(source);
        if (status == BlockStatus.Okay && old is not null) status = await to.HandleAsync(old);
        int length = source.Data.Length;
        for (int at = 0; at < length && status == BlockStatus.Okay;)
        {
            int end = at;
            while (end < length && IsWanted(source, old, end)) end = Math.Min(end + PieceBytes, length);
            if (end > at) status = await WriteAsync(sector, source.Data[at..end], at);
            at = end == at ? at + PieceBytes : end;
        }

        if (old is not null) _requests.Return(old);
        _requests.Return(source);
        return status;
    }

    private bool IsWanted(BlockRequest source, BlockRequest? old, int at)
    {
        int length = Math.Min(PieceBytes, source.Data.Length - at);
        ReadOnlySpan<byte> piece = source.Data.Span.Slice(at, length);
        if (old is not null) return !piece.SequenceEqual(old.Data.Span.Slice(at, length));
        return !isEmpty || piece.ContainsAnyExcept((byte)0);
    }

    private async Task<BlockStatus> WriteAsync(ulong sector, Memory<byte> data, int at)
    {
        BlockRequest write = _requests.Rent(
            BlockOperation.Write, sector + (ulong)(at / BlockRequest.SectorSize),
            data.Length / BlockRequest.SectorSize);
        data.CopyTo(write.Data);
        BlockStatus status = await to.HandleAsync(write);
        _requests.Return(write);
        Written += data.Length;
        return status;
    }

    private async Task<BlockStatus> RunAsync(IBlockImage image, BlockOperation operation, ulong sector, long count)
    {
        BlockRequest request = _requests.Rent(operation, sector, count);
        BlockStatus status = await image.HandleAsync(request);
        _requests.Return(request);
        return status;
    }
}
