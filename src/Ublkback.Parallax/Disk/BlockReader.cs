using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Images.Common;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Map;

namespace Ublkback.Parallax.Disk;

/// <summary>Reads a disk's data. On the VDI's worker; allocates nothing in the steady state.</summary>
[DataPath]
internal sealed class BlockReader(BlockMap map, SourceContainers files, ImageScratch buffers)
{
    private const int MaxRun = 256; // blocks of one read

    private const int MaxTogether = 16; // reads of one request

    private readonly Stack<Scratch> _scratches = new();
    private readonly RequestQuiescence _lookups = new();

    /// <summary>
    /// Waits until nobody reads any more from where blocks were until now, so that others may be put there.
    /// </summary>
    public ValueTask DrainAsync() => _lookups.DrainAsync();

    /// <summary>True if all of the disk is known to read as zeros.</summary>
    public bool IsEmpty => map.IsEmpty;

    /// <summary>Reads whole sectors.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> ReadAsync(long offset, Memory<byte> data)
    {
        int epoch = _lookups.Begin();
        BlockStatus status = BlockStatus.Okay;
        while (data.Length > 0 && status == BlockStatus.Okay)
        {
            BlockPiece piece = BlockPiece.FirstOf(offset, data.Length);
            Memory<byte> part = data[..piece.Length];
            status = piece.IsWhole
                ? await ReadBlocksAsync(piece.Block, part)
                : await ReadPartAsync(piece.Block, piece.Skip, part);
            offset += piece.Length;
            data = data[piece.Length..];
        }

        _lookups.End(epoch);
        return status;
    }

    /// <summary>
    /// Finds how blocks are kept: from the first on, as many as follow each other in one file, or are zeros.
    /// </summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<(BlockStatus Status, MapEntry First, int Count)> FindRunAsync(long block, int maxCount)
    {
        int epoch = _lookups.Begin();
        (BlockStatus, MapEntry, int) run = await FindRunAsync(block, maxCount, null);
        _lookups.End(epoch);
        return run;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<(BlockStatus Status, MapEntry First, int Count)> FindRunAsync(
        long block, int maxCount, uint[]? crcs)
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
            else if (first.Address.IsNone
                ? !entry.Address.IsNone
                : entry.Address.Value != first.Address.Value + (ulong)count)
                break;
            if (crcs is not null) crcs[count] = entry.Crc;
            count++;
        }

        return (BlockStatus.Okay, first, count);
    }

    // Runs that are scattered in the file are read together.
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> ReadBlocksAsync(long block, Memory<byte> data)
    {
        Scratch scratch = _scratches.TryPop(out Scratch? free) ? free : new Scratch();
        BlockStatus status = BlockStatus.Okay;
        int begun = 0, ended = 0;
        while (data.Length > 0 && status == BlockStatus.Okay)
        {
            if (begun - ended == MaxTogether) status = await scratch.Reads[ended++ % MaxTogether];
            uint[] crcs = scratch.Crcs[begun % MaxTogether];
            (BlockStatus found, MapEntry first, int count) =
                await FindRunAsync(block, Math.Min(MaxRun, data.Length / VdiFormat.BlockSize), crcs);
            if (found != BlockStatus.Okay) status = found;
            if (status != BlockStatus.Okay) break;
            Memory<byte> run = data[..(count * VdiFormat.BlockSize)];
            if (first.Address.IsNone)
            {
                run.Span.Clear();
            }
            else if (run.Length == data.Length && begun == ended)
            {
                status = await files.ReadAsync(first.Address, run);
                if (status == BlockStatus.Okay && !IsWhole(first.Address, crcs, run.Span)) status = BlockStatus.IoError;
            }
            else
            {
#pragma warning disable CA2012 // each is awaited once, here
                scratch.Reads[begun++ % MaxTogether] = ReadRunAsync(first.Address, crcs, run);
#pragma warning restore CA2012
            }

            block += count;
            data = data[run.Length..];
        }

        while (ended < begun)
        {
            BlockStatus read = await scratch.Reads[ended++ % MaxTogether];
            if (status == BlockStatus.Okay) status = read;
        }

        _scratches.Push(scratch);
        return status;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> ReadRunAsync(BlockAddress first, uint[] crcs, Memory<byte> run)
    {
        BlockStatus status = await files.ReadAsync(first, run);
        return status == BlockStatus.Okay && !IsWhole(first, crcs, run.Span) ? BlockStatus.IoError : status;
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
        int count = run.Length / VdiFormat.BlockSize;
        Span<uint> found = stackalloc uint[MaxRun];
        Crc32C.OfEach(run, VdiFormat.BlockSize, found);
        for (int i = 0; i < count; i++)
        {
            if (found[i] != crcs[i])
                return files.IsWhole(new MapEntry(new BlockAddress(first.Value + (ulong)i), crcs[i]), found[i]);
        }

        return true;
    }

    // What a request needs while it is read.
    private sealed class Scratch
    {
        public Scratch()
        {
            for (int i = 0; i < MaxTogether; i++) Crcs[i] = new uint[MaxRun];
        }

        public uint[][] Crcs { get; } = new uint[MaxTogether][];

        public ValueTask<BlockStatus>[] Reads { get; } = new ValueTask<BlockStatus>[MaxTogether];
    }
}
