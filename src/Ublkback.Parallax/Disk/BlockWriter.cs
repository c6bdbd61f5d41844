using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Images.Common;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Log;

namespace Ublkback.Parallax.Disk;

/// <summary>Writes a disk's data: into the log. On the VDI's worker; allocates nothing in the steady state.</summary>
/// <remarks>
/// A block of which a part is written is read, changed and written as a whole, after everything that is on its way to
/// it; meanwhile nobody else writes it.
/// </remarks>
[DataPath]
internal sealed class BlockWriter(
    BlockReader reader, VdiLog log, Checkpointer checkpointer, BlockClaims claims, WriteBrake brake,
    ImageScratch buffers)
{
    private const long MaxDiscard = 1L << 31; // blocks of one entry: 8 TiB

    /// <summary>Writes whole sectors.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> WriteAsync(long offset, Memory<byte> data)
    {
        BlockStatus status = BlockStatus.Okay;
        await brake.DelayAsync();
        while (data.Length > 0 && status == BlockStatus.Okay)
        {
            BlockPiece piece = BlockPiece.FirstOf(offset, data.Length);
            Memory<byte> part = data[..piece.Length];
            status = piece.IsWhole
                ? await WriteBlocksAsync(piece.Block, part, isClaimed: false, SegmentUse.Data)
                : await ChangeBlockAsync(piece.Block, piece.Skip, part);
            offset += piece.Length;
            data = data[piece.Length..];
        }

        return status;
    }

    /// <summary>Has whole sectors read as zeros.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> DiscardAsync(long offset, long length)
    {
        if (reader.IsEmpty) return BlockStatus.Okay; // as of a new disk, when a file system is made on it
        // Blocks of which only a part is discarded stay as they are.
        long block = VdiFormat.BlocksFor(offset);
        long end = (offset + length) / VdiFormat.BlockSize;
        BlockStatus status = BlockStatus.Okay;
        while (block < end && status == BlockStatus.Okay)
        {
            long count = Math.Min(MaxDiscard, end - block);
            (status, LogBatch? batch) = await ReserveAsync(block, count, false, SegmentUse.Discards);
            if (batch is null) break;
            batch.Add(new LogEntry(LogEntryKind.Discard, block, (uint)count));
            log.Commit();
            status = await log.EndAsync(batch);
            block += count;
        }

        return status;
    }

    /// <summary>Writes blocks again, so that they follow each other in the file.</summary>
    public async ValueTask<BlockStatus> RewriteAsync(long block, int count) // off the path: defragmentation
    {
        await claims.ClaimAsync(block, count);
        return await RewriteClaimedAsync(block, count, SegmentUse.Data);
    }

    /// <summary>
    /// Writes a block again, so that it leaves its segment. It never waits for a guest, which may wait for the
    /// collection that this is a part of.
    /// </summary>
    /// <param name="block">The block.</param>
    /// <param name="at">Where the block was when its content was read.</param>
    /// <param name="content">The content. It is read again if the block is elsewhere now.</param>
    /// <returns>Null if a guest is about to write the block.</returns>
    // off the path: collection
    public async ValueTask<BlockStatus?> TryMoveAsync(long block, BlockAddress at, Memory<byte> content)
    {
        if (!claims.TryClaim(block, 1)) return null;
        await log.SettleAsync();
        (BlockStatus status, MapEntry now, _) = await reader.FindRunAsync(block, 1);
        if (status == BlockStatus.Okay && (now.Address.Value != at.Value || Crc32C.Of(content.Span) != now.Crc))
            return await RewriteClaimedAsync(block, 1, SegmentUse.Moves);
        if (status == BlockStatus.Okay)
            status = await WriteBlocksAsync(block, content, isClaimed: true, SegmentUse.Moves);
        claims.Release(block, 1);
        return status;
    }

    // off the path: upkeep
    private async ValueTask<BlockStatus> RewriteClaimedAsync(long block, int count, SegmentUse use)
    {
        Memory<byte> data = await buffers.RentAsync(count * VdiFormat.BlockSize);
        BlockStatus status = await ReadToChangeAsync(block, data);
        if (status == BlockStatus.Okay) status = await WriteBlocksAsync(block, data, isClaimed: true, use);
        claims.Release(block, count);
        buffers.Return(data);
        return status;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> ChangeBlockAsync(long block, int skip, Memory<byte> data)
    {
        Memory<byte> whole = await buffers.RentAsync(VdiFormat.BlockSize);
        await claims.ClaimAsync(block, 1);
        BlockStatus status = await ReadToChangeAsync(block, whole);
        if (status == BlockStatus.Okay)
        {
            data.Span.CopyTo(whole.Span.Slice(skip, data.Length));
            status = await WriteBlocksAsync(block, whole, isClaimed: true, SegmentUse.Data);
        }

        claims.Release(block, 1);
        buffers.Return(whole);
        return status;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> ReadToChangeAsync(long block, Memory<byte> data)
    {
        await log.SettleAsync();
        return await reader.ReadAsync(VdiFormat.OffsetOf(block), data);
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> WriteBlocksAsync(
        long block, Memory<byte> data, bool isClaimed, SegmentUse use)
    {
        int failures = log.Failures;
        while (true)
        {
            (BlockStatus status, LogBatch? batch) =
                await ReserveAsync(block, data.Length / VdiFormat.BlockSize, isClaimed, use);
            if (batch is null) return status;
            for (; data.Length > 0 && batch.Room > 0; data = data[VdiFormat.BlockSize..])
                batch.Add(LogEntryKind.Data, block++, data.Span[..VdiFormat.BlockSize]);
            log.Commit();
            if (data.Length > 0) continue;
            status = await log.EndAsync(batch);
            // Batches end in order, so those before have ended as well.
            return log.Failures == failures ? status : BlockStatus.IoError;
        }
    }

    // Waits until some blocks may be written. What is added to the batch must be so before anything else is awaited.
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<(BlockStatus Status, LogBatch? Batch)> ReserveAsync(
        long block, long count, bool isClaimed, SegmentUse use)
    {
        while (true)
        {
            BlockStatus status = await checkpointer.MakeRoomAsync();
            if (status != BlockStatus.Okay) return (status, null);
            (status, LogBatch? batch) = await log.ReserveAsync(use);
            if (batch is null || isClaimed || !claims.Overlap(block, count)) return (status, batch);
            await claims.ReleasedAsync();
        }
    }
}
