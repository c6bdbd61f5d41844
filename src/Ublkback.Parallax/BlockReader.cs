using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Linux;

namespace Ublkback.Parallax;

/// <summary>Reads a disk's data. On the VDI's worker; allocates nothing in the steady state.</summary>
internal sealed class BlockReader(BlockMap map, VdiFiles files, CopyBuffers buffers)
{
    private const int MaxRun = 256; // blocks of one read

    private readonly Stack<uint[]> _crcs = new();

    /// <summary>Reads whole sectors.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> ReadAsync(long offset, Memory<byte> data)
    {
        BlockStatus status = BlockStatus.Okay;
        while (data.Length > 0 && status == BlockStatus.Okay)
        {
            long block = offset / VdiFormat.BlockSize;
            int skip = (int)(offset % VdiFormat.BlockSize);
            int length = skip == 0 && data.Length >= VdiFormat.BlockSize
                ? data.Length / VdiFormat.BlockSize * VdiFormat.BlockSize
                : Math.Min(data.Length, VdiFormat.BlockSize - skip);
            status = length % VdiFormat.BlockSize == 0 ? await ReadBlocksAsync(block, data[..length]) : await ReadPartAsync(block, skip, data[..length]);
            offset += length;
            data = data[length..];
        }

        return status;
    }

    /// <summary>Finds how blocks are kept: from the first on, as many as follow each other in one file, or are zeros.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<(BlockStatus Status, MapEntry First, int Count)> FindRunAsync(long block, int maxCount, uint[]? crcs)
    {
        MapEntry first = default;
        int count = 0;
        while (count < maxCount)
        {
            if (!map.TryFind(block + count, out MapEntry entry, out MapEntry missing))
            {
                BlockStatus status = await map.LoadAsync(missing);
                if (status != BlockStatus.Okay) return (status, default, 0);
                continue;
            }

            if (count == 0) first = entry;
            else if (first.Address.IsNone ? !entry.Address.IsNone : entry.Address.Value != first.Address.Value + (ulong)count) break;
            if (crcs is not null) crcs[count] = entry.Crc;
            count++;
        }

        return (BlockStatus.Okay, first, count);
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> ReadBlocksAsync(long block, Memory<byte> data)
    {
        uint[] crcs = _crcs.TryPop(out uint[]? free) ? free : new uint[MaxRun];
        BlockStatus status = BlockStatus.Okay;
        while (data.Length > 0 && status == BlockStatus.Okay)
        {
            (status, MapEntry first, int count) = await FindRunAsync(block, Math.Min(MaxRun, data.Length / VdiFormat.BlockSize), crcs);
            if (status != BlockStatus.Okay) break;
            Memory<byte> run = data[..(count * VdiFormat.BlockSize)];
            if (first.Address.IsNone) run.Span.Clear();
            else status = await files.ReadAsync(first.Address, run);
            if (status == BlockStatus.Okay && !first.Address.IsNone && !IsWhole(first.Address, crcs, run.Span)) status = BlockStatus.IoError;
            block += count;
            data = data[run.Length..];
        }

        _crcs.Push(crcs);
        return status;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> ReadPartAsync(long block, int skip, Memory<byte> data)
    {
        Memory<byte> whole = await buffers.RentAsync(VdiFormat.BlockSize);
        BlockStatus status = await ReadBlocksAsync(block, whole);
        if (status == BlockStatus.Okay) whole.Span.Slice(skip, data.Length).CopyTo(data.Span);
        buffers.Return(whole);
        return status;
    }

    private bool IsWhole(BlockAddress first, uint[] crcs, ReadOnlySpan<byte> run)
    {
        for (int i = 0; i * VdiFormat.BlockSize < run.Length; i++)
        {
            MapEntry at = new(new BlockAddress(first.Value + (ulong)i), crcs[i]);
            if (!files.IsWhole(at, run.Slice(i * VdiFormat.BlockSize, VdiFormat.BlockSize))) return false;
        }

        return true;
    }
}
