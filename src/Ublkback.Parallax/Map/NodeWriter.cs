using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Map;

/// <summary>
/// Writes nodes, and tables of snapshots, into segments of their own. On the VDI's worker, for one at a time.
/// </summary>
internal sealed class NodeWriter(IVdiContainer container, uint vdi, SegmentPool segments)
{
    private const int BufferBlocks = 64;

    private readonly ImageAccess _file = new(container.Blocks);
    private readonly Memory<byte> _buffer = PinnedMemory.AllocatePages(BufferBlocks * VdiFormat.BlockSize);
    private long _next;
    private long _end;
    private int _buffered;

    /// <summary>The segment that is being filled; 0 when there is none.</summary>
    public long Segment => _end == 0 ? 0 : VdiFormat.SegmentOf(_end - 1);

    /// <summary>Writes a block, and says where. It is there after the next <see cref="FlushAsync"/>.</summary>
    public async ValueTask<(BlockStatus Status, MapEntry Entry)> AddAsync(ReadOnlyMemory<byte> block)
    {
        if (_buffered == BufferBlocks || _next == _end)
        {
            BlockStatus status = await FlushAsync();
            if (status == BlockStatus.Okay && _next == _end) status = await MoveAsync();
            if (status != BlockStatus.Okay) return (status, default);
        }

        block.CopyTo(_buffer[(_buffered * VdiFormat.BlockSize)..]);
        _buffered++;
        return (BlockStatus.Okay, new MapEntry(BlockAddress.Of(vdi, _next++), Crc32C.Of(block.Span)));
    }

    /// <summary>Sees to it that so many blocks follow each other.</summary>
    public async ValueTask<BlockStatus> MakeRoomAsync(int count)
    {
        if (_end - _next >= count) return BlockStatus.Okay;
        BlockStatus status = await FlushAsync();
        return status == BlockStatus.Okay ? await MoveAsync() : status;
    }

    /// <summary>Writes what is left. It is durable after a flush of the file.</summary>
    public async ValueTask<BlockStatus> FlushAsync()
    {
        if (_buffered == 0) return BlockStatus.Okay;
        int length = _buffered * VdiFormat.BlockSize;
        BlockStatus status = await _file.RunAsync(
            BlockOperation.Write, VdiFormat.OffsetOf(_next - _buffered), length, _buffer[..length]);
        _buffered = 0;
        if (status != BlockStatus.Okay) _next = _end = 0;
        return status;
    }

    private async ValueTask<BlockStatus> MoveAsync()
    {
        (BlockStatus status, long first) = await segments.TakeAsync(SegmentUse.Nodes);
        if (status != BlockStatus.Okay) return status;
        _next = first;
        _end = first + VdiFormat.SegmentBlocks;
        return BlockStatus.Okay;
    }
}
