using System.Runtime.CompilerServices;

namespace Ublkback.Block;

/// <summary>
/// Another image, addressed in bytes instead of sectors. All offsets and lengths are whole sectors of 512 bytes. On one
/// worker; allocates nothing in the steady state.
/// </summary>
[DataPath]
public sealed class ImageAccess(IBlockImage image)
{
    private readonly Stack<BlockRequest> _free = new();

    /// <summary>Has the image do something.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> RunAsync(
        BlockOperation operation, long offset, long byteCount, Memory<byte> data)
    {
        BlockRequest request = _free.TryPop(out BlockRequest? free) ? free : new BlockRequest();
        request.Operation = operation;
        request.Sector = (ulong)offset / BlockRequest.SectorSize;
        request.SectorCount = byteCount / BlockRequest.SectorSize;
        request.Data = data;
        BlockStatus status = await image.HandleAsync(request);
        request.Data = default;
        _free.Push(request);
        return status;
    }

    /// <summary>
    /// Reads from an image of a size in bytes; what lies behind its end is zeros. If the size ends within a sector, the
    /// image itself fills that sector up with zeros.
    /// </summary>
    public ValueTask<BlockStatus> ReadAsync(long offset, Memory<byte> buffer, long size)
    {
        const int SectorSize = BlockRequest.SectorSize;
        int available = (int)(Math.Clamp(size - offset, 0, buffer.Length) + SectorSize - 1) & ~(SectorSize - 1);
        if (available < buffer.Length) buffer.Span[available..].Clear();
        return available == 0
            ? new ValueTask<BlockStatus>(BlockStatus.Okay)
            : RunAsync(BlockOperation.Read, offset, available, buffer[..available]);
    }
}
