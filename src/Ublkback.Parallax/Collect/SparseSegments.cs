using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Collect;

/// <summary>
/// Empties sparse segments, where only a complete segment frees space: it writes the blocks that the disk needs of them
/// again at the end of the log. The next collection frees the segments. On the VDI's worker.
/// </summary>
/// <param name="image">The VDI.</param>
/// <param name="others">Opens other VDIs' files.</param>
internal sealed class SparseSegments(VdiImage image, OpenVdiFile others)
{
    /// <summary>
    /// The most needed blocks of a segment that is emptied. So the others take at most 1.5 times what is needed.
    /// </summary>
    public const int MaxNeeded = VdiFormat.SegmentBlocks * 2 / 3;

    private const int MaxSegments = 256; // 1 GiB between two collections
    private const int PieceBlocks = 256; // what is read at once, and then moved: 1 MiB
    private const int Together = 8; // pieces that are moved at the same time
    private const int MaxTaken = 128; // segments, by guests too; then what was moved is freed first: 512 MiB

    private readonly VdiParts _parts = image.Parts;
    private readonly ImageAccess _file = new(image.Parts.Container.Blocks);
    private bool _isOver; // somebody needs the disk alone, or there is no more space

    /// <summary>Empties segments, the sparsest first.</summary>
    /// <param name="disk">The disk at the checkpoint of the last collection.</param>
    /// <param name="sparse">Segments of which only this disk needs blocks, and how many it needs.</param>
    /// <param name="gain">
    /// How many segments should become free. <see cref="double.MaxValue"/> empties all, however long that takes.
    /// </param>
    /// <param name="freed">
    /// How many segments the last collection freed. On full storage no more than these are filled.
    /// </param>
    /// <returns>How many blocks were written.</returns>
    public async Task<long> EmptyAsync(
        VdiVersion disk, IEnumerable<(long Segment, int Needed)> sparse, double gain, int freed)
    {
        if (gain <= 0) return 0;
        bool isFull = _parts.Segments.Status == BlockStatus.NoSpace;
        int room = isFull ? Math.Clamp(freed, 1, MaxSegments) : MaxSegments;
        HashSet<long> chosen = [];
        long blocks = 0;
        foreach ((long segment, int needed) in sparse.Where(one => one.Needed <= MaxNeeded).OrderBy(one => one.Needed))
        {
            blocks += needed;
            if (chosen.Count - ((double)blocks / VdiFormat.SegmentBlocks) >= gain) break;
            if (chosen.Count > 0 && blocks > (long)room * MaxNeeded) break;
            chosen.Add(segment);
        }

        if (chosen.Count == 0) return 0;
        if (isFull) await _parts.Segments.ReplenishAsync(room);
        List<(long Block, BlockAddress At)> found = await Task.Run(() => Find(disk, chosen));
        Queue<Range> pieces = new(FindPieces(found));
        long written = 0, end = gain < double.MaxValue ? _parts.Segments.Taken + MaxTaken : long.MaxValue;
        await Task.WhenAll(Enumerable.Range(0, Together).Select(async _ =>
        {
            Memory<byte> memory = PinnedMemory.AllocatePages(PieceBlocks * VdiFormat.BlockSize);
            while (!_isOver && _parts.Segments.Taken < end && pieces.TryDequeue(out Range piece))
            {
                image.Closing.ThrowIfCancellationRequested();
                long moved = await MoveAsync(found[piece], memory);
                written += moved; // after the wait, since others add meanwhile
            }
        }));
        return written;
    }

    // What lies near each other is read at once: far away, one read takes about as long as another.
    private static IEnumerable<Range> FindPieces(List<(long Block, BlockAddress At)> found)
    {
        for (int first = 0, next; first < found.Count; first = next)
        {
            long end = found[first].At.Block + PieceBlocks;
            for (next = first + 1; next < found.Count && found[next].At.Block < end; next++)
            {
            }

            yield return first..next;
        }
    }

    private async Task<long> MoveAsync(List<(long Block, BlockAddress At)> blocks, Memory<byte> memory)
    {
        long start = blocks[0].At.Block;
        Memory<byte> content = memory[..(int)VdiFormat.OffsetOf(blocks[^1].At.Block + 1 - start)];
        if (await _file.RunAsync(BlockOperation.Read, VdiFormat.OffsetOf(start), content.Length, content)
            != BlockStatus.Okay)
            return 0; // they stay
        BlockStatus?[] moved = await Task.WhenAll(blocks.Select(one => MoveAsync(
            one.Block, one.At, content.Slice((int)VdiFormat.OffsetOf(one.At.Block - start), VdiFormat.BlockSize))));
        _isOver |= moved.Contains(BlockStatus.NoSpace);
        return moved.LongCount(status => status == BlockStatus.Okay); // the others are damaged, or a guest's
    }

    // Who needs the disk alone may wait for this collection.
    private async Task<BlockStatus?> MoveAsync(long block, BlockAddress at, Memory<byte> content)
    {
        if (_isOver) return null;
        if (!_parts.Epochs.TryBegin(out int epoch))
        {
            _isOver = true;
            return null;
        }

        try
        {
            return await _parts.Writer.TryMoveAsync(block, at, content);
        }
        finally
        {
            _parts.Epochs.End(epoch);
        }
    }

    // In the order of the file. For a node, the first block below it: when that is written, so is the node.
    private List<(long Block, BlockAddress At)> Find(VdiVersion disk, HashSet<long> segments)
    {
        Dictionary<long, BlockAddress> found = [];
        uint vdi = _parts.Superblock.Vdi;
        long end = VdiFormat.BlocksFor(_parts.Content.Size);
        using VersionWalker walker = new(others, new BlockMarks())
        {
            Cancellation = image.Closing,
            VisitPlace = (block, at) =>
            {
                if (at.Vdi == vdi && block < end && segments.Contains(VdiFormat.SegmentOf(at.Block)))
                    found[block] = at; // nodes come before what is below them
            },
        };
        walker.WalkNodes(disk);
        return [.. found.Select(pair => (pair.Key, pair.Value)).OrderBy(one => one.Value.Block)];
    }
}
