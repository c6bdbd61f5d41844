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
/// <remarks>
/// A log without a known end may end at a batch only if nothing promised that batch: no mark, no header further on,
/// and no remains of it where a write is made as a whole. Otherwise it is damaged there.
/// </remarks>
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
        // Before the log: a process that writes it promises nothing that is not there.
        ulong promised = end == 0 ? EssentialBlocks.Read(container).Promised : 0;
        while (end == 0 || at.Sequence < end)
        {
            Reached = at;
            LogPosition elsewhere = at with { Block = at.NextSegment };
            if (TryRead(at, end == 0, visit, visitBatch) is LogPosition here) at = here;
            else if (at.NextSegment != 0 && TryRead(elsewhere, end == 0, visit, visitBatch) is LogPosition there)
                at = there;
            else if (ProveDamage(at, end, promised) is not string proof) break;
            else
                throw new InvalidDataException($"{container.Path}: batch {at.Sequence} of the log is missing or "
                    + $"damaged at block {at.Block} or {at.NextSegment}: {proof}");
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

    private string? ProveDamage(LogPosition at, ulong end, ulong promised)
    {
        if (end != 0) return $"a snapshot or a clone needs the log up to batch {end - 1}";
        if (at.Sequence < promised) return $"a mark says that batch {promised - 1} was durable";
        return new LogEvidence(container, id).Find(at);
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
