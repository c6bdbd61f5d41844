using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Log;

/// <summary>Takes an entry of a log.</summary>
/// <param name="entry">The entry.</param>
/// <param name="place">The block of data that belongs to it, if one does.</param>
/// <param name="block">The content of that block.</param>
/// <param name="sequence">The number of its batch.</param>
internal delegate void LogVisitor(LogEntry entry, MapEntry place, ReadOnlySpan<byte> block, ulong sequence);

/// <summary>Takes a batch of a log: the place of its header, and the blocks that follow.</summary>
internal delegate void BatchVisitor(long block, int blockCount);

/// <summary>
/// Goes through a log as far as it is whole: each batch has the number and the checksum that come after the one before,
/// and each block in it its own, which tells where the log ends. In the part before a known end, blocks may have been
/// given back that were written over, and are compared when they are read. Blocks the thread.
/// </summary>
/// <param name="container">The file that the log is in.</param>
/// <param name="vdi">The number of the VDI whose file it is.</param>
/// <param name="id">The identity of that VDI.</param>
internal sealed class LogReader(IVdiContainer container, uint vdi, Guid id)
{
    private readonly byte[] _segment = new byte[VdiFormat.SegmentSize];
    private long _loaded = -1;

    /// <summary>The largest number of an owner that was found.</summary>
    public ulong Epoch { get; private set; }

    /// <summary>Behind the last batch that was read.</summary>
    public LogPosition Reached { get; private set; }

    /// <summary>Goes from a position to a batch, or as far as it can; gives where that is.</summary>
    /// <exception cref="InvalidDataException">A batch is missing before the end, or one that is known to have been
    /// durable.</exception>
    public LogPosition Read(LogPosition start, ulong end, LogVisitor visit, BatchVisitor? visitBatch = null)
    {
        LogPosition at = Reached = start;
        while (end == 0 || at.Sequence < end)
        {
            Reached = at;
            LogPosition elsewhere = at with { Block = at.NextSegment };
            if (TryRead(at, end == 0, visit, visitBatch) is LogPosition here) at = here;
            else if (at.NextSegment != 0 && TryRead(elsewhere, end == 0, visit, visitBatch) is LogPosition there)
                at = there;
            else if (end == 0 && !IsKnownDurable(at)) break;
            else
                throw new InvalidDataException($"{container.Path}: batch {at.Sequence} of the log is missing or "
                    + $"damaged; it was to be at block {at.Block} or {at.NextSegment}");
        }

        return at;
    }

    private LogPosition? TryRead(LogPosition at, bool comparesBlocks, LogVisitor visit, BatchVisitor? visitBatch)
    {
        long segment = VdiFormat.SegmentOf(at.Block);
        if (segment == 0) return null;
        Load(segment);
        int first = (int)(at.Block % VdiFormat.SegmentBlocks);
        ReadOnlySpan<byte> header = BlockAt(first);
        if (!BatchHeader.IsValid(
            header, id, at, out int entryCount, out int blockCount, out long next, out ulong epoch))
            return null;
        if (first + 1 + blockCount > VdiFormat.SegmentBlocks || next % VdiFormat.SegmentBlocks != 0) return null;
        int block = first + 1;
        for (int i = 0; i < entryCount; i++)
        {
            LogEntry entry = BatchHeader.GetEntry(header, i);
            if (!entry.HasBlock) continue;
            if (block > first + blockCount || (comparesBlocks && Crc32C.Of(BlockAt(block)) != entry.Value)) return null;
            block++;
        }

        Epoch = Math.Max(Epoch, epoch);
        visitBatch?.Invoke(at.Block, blockCount);
        block = first + 1;
        for (int i = 0; i < entryCount; i++)
        {
            LogEntry entry = BatchHeader.GetEntry(header, i);
            MapEntry place = entry.HasBlock
                ? new MapEntry(BlockAddress.Of(vdi, (segment * VdiFormat.SegmentBlocks) + block), entry.Value)
                : default;
            visit(entry, place, entry.HasBlock ? BlockAt(block++) : default, at.Sequence);
        }

        return new LogPosition(at.Block + 1 + blockCount, next, at.Sequence + 1, CheckedBlock.CrcOf(header));
    }

    // A batch that a later one calls durable is not the torn end of the log: what was written there has been damaged
    // since.
    private bool IsKnownDurable(LogPosition at)
    {
        if (IsKnownDurable(at, (int)(at.Block % VdiFormat.SegmentBlocks), VdiFormat.SegmentOf(at.Block))) return true;
        return at.NextSegment != 0 && IsKnownDurable(at, 0, VdiFormat.SegmentOf(at.NextSegment));
    }

    private bool IsKnownDurable(LogPosition at, int first, long segment)
    {
        if (segment == 0) return false;
        Load(segment);
        for (int i = first; i < VdiFormat.SegmentBlocks; i++)
        {
            if (BatchHeader.TryReadDurable(BlockAt(i), id, out ulong durable) && durable > at.Sequence) return true;
        }

        return false;
    }

    private void Load(long segment)
    {
        if (_loaded == segment) return;
        _loaded = -1;
        container.Read(segment * VdiFormat.SegmentBlocks, _segment);
        _loaded = segment;
    }

    private ReadOnlySpan<byte> BlockAt(int index) => _segment.AsSpan(index * VdiFormat.BlockSize, VdiFormat.BlockSize);
}
