using System.Buffers.Binary;

namespace Ublkback.Parallax.Format;

/// <summary>What an entry of a batch tells.</summary>
internal enum LogEntryKind : byte
{
    /// <summary>A block was written; its data follows the header.</summary>
    Data = 1,

    /// <summary>Blocks read as zeros from now on.</summary>
    Discard = 2,

    /// <summary>The disk has another size.</summary>
    Resize = 3,

    /// <summary>A snapshot was made; a block that describes it follows the header.</summary>
    Snapshot = 4,

    /// <summary>A snapshot was deleted.</summary>
    DeleteSnapshot = 5,
}

/// <summary>An entry of a batch.</summary>
/// <param name="Kind">What it tells.</param>
/// <param name="Subject">The block; for a size sectors of 512 bytes, for a snapshot its number. Below 2^56.</param>
/// <param name="Value">The checksum of the data that follows; for a discard how many blocks.</param>
internal readonly record struct LogEntry(LogEntryKind Kind, long Subject, uint Value)
{
    /// <summary>Whether a block of data follows the header for it.</summary>
    public bool HasBlock => Kind is LogEntryKind.Data or LogEntryKind.Snapshot;
}

/// <summary>
/// The first block of a batch: its place in the log, and what it tells. It names the VDI's identity, which a guest does
/// not know: where a header may be looked for in vain, there may be blocks that a guest wrote.
/// </summary>
internal static class BatchHeader
{
    /// <summary>Entries of a batch at most.</summary>
    public const int MaxEntries = (VdiFormat.BlockSize - EntriesAt - sizeof(uint)) / EntryLength;

    private const uint Magic = 0x474F_4C56; // "VLOG"
    private const int EntriesAt = 64;
    private const int EntryLength = 12;
    private const int CountAt = 8;
    private const int SubjectBits = 56;

    /// <summary>Writes all but the entries, and gives the checksum.</summary>
    /// <param name="block">Where to.</param>
    /// <param name="vdi">The identity of the VDI.</param>
    /// <param name="epoch">The writer's.</param>
    /// <param name="durable">The first batch that is not known to be durable.</param>
    /// <param name="position">Its place.</param>
    /// <param name="entryCount">Its entries.</param>
    /// <param name="blockCount">The blocks that follow.</param>
    public static uint Seal(
        Span<byte> block, Guid vdi, ulong epoch, ulong durable, LogPosition position, int entryCount, int blockCount)
    {
        FieldWriter fields = new(block);
        fields.Write(Magic);
        fields.Write((uint)entryCount);
        fields.Write((uint)blockCount);
        fields.Write(position.Chain);
        fields.Write(vdi);
        fields.Write(epoch);
        fields.Write(position.Sequence);
        fields.Write(position.NextSegment);
        fields.Write(durable);
        block[(EntriesAt + (entryCount * EntryLength))..].Clear();
        return CheckedBlock.Seal(block);
    }

    /// <summary>
    /// Whether a block is the header of the batch that is to come at a position, as far as it can tell itself.
    /// </summary>
    public static bool IsValid(
        ReadOnlySpan<byte> block, Guid vdi, LogPosition position, out int entryCount, out int blockCount,
        out long nextSegment, out ulong epoch)
    {
        FieldReader fields = new(block);
        bool isOurs = fields.ReadUInt32() == Magic;
        entryCount = (int)fields.ReadUInt32();
        blockCount = (int)fields.ReadUInt32();
        isOurs &= fields.ReadUInt32() == position.Chain;
        isOurs &= fields.ReadGuid() == vdi;
        epoch = fields.ReadUInt64();
        isOurs &= fields.ReadUInt64() == position.Sequence;
        nextSegment = fields.ReadInt64();
        return isOurs && entryCount is >= 0 and <= MaxEntries && blockCount >= 0 && blockCount <= entryCount
            && CheckedBlock.IsValid(block);
    }

    /// <summary>
    /// Reads what a header of a VDI's log says of others, wherever it is in the log. False if the block is not one.
    /// </summary>
    /// <param name="block">The block.</param>
    /// <param name="vdi">The identity of the VDI.</param>
    /// <param name="nextSegment">The first block of the segment where the log goes on.</param>
    /// <param name="durable">The first batch that was not known to be durable then.</param>
    public static bool TryReadClaims(ReadOnlySpan<byte> block, Guid vdi, out long nextSegment, out ulong durable)
    {
        FieldReader fields = new(block);
        bool isOurs = fields.ReadUInt32() == Magic;
        fields.Skip(12);
        isOurs = isOurs && fields.ReadGuid() == vdi && CheckedBlock.IsValid(block);
        fields.Skip(16);
        nextSegment = fields.ReadInt64();
        durable = fields.ReadUInt64();
        return isOurs && nextSegment >= 0 && nextSegment % VdiFormat.SegmentBlocks == 0;
    }

    /// <summary>Writes an entry.</summary>
    public static void SetEntry(Span<byte> block, int index, LogEntry entry)
    {
        Span<byte> place = block.Slice(EntriesAt + (index * EntryLength), EntryLength);
        BinaryPrimitives.WriteUInt64LittleEndian(place, ((ulong)entry.Kind << SubjectBits) | (ulong)entry.Subject);
        BinaryPrimitives.WriteUInt32LittleEndian(place[CountAt..], entry.Value);
    }

    /// <summary>Reads an entry.</summary>
    public static LogEntry GetEntry(ReadOnlySpan<byte> block, int index)
    {
        ReadOnlySpan<byte> place = block.Slice(EntriesAt + (index * EntryLength), EntryLength);
        ulong word = BinaryPrimitives.ReadUInt64LittleEndian(place);
        return new LogEntry(
            (LogEntryKind)(word >> SubjectBits), (long)(word & ((1UL << SubjectBits) - 1)),
            BinaryPrimitives.ReadUInt32LittleEndian(place[CountAt..]));
    }
}
