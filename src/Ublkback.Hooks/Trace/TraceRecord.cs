using System.Buffers.Binary;
using Ublkback.Block;

namespace Ublkback.Hooks.Trace;

/// <summary>One request of a trace.</summary>
/// <param name="StartMicroseconds">When it came, counted from when the disk was opened.</param>
/// <param name="LatencyMicroseconds">How long it took.</param>
/// <param name="Operation">What was asked.</param>
/// <param name="Status">How it ended.</param>
/// <param name="Sector">First sector, in units of 512 bytes.</param>
/// <param name="SectorCount">Length in sectors.</param>
/// <param name="Checksum">CRC32C of the data; 0 when there is none.</param>
public readonly record struct TraceRecord(
    long StartMicroseconds, long LatencyMicroseconds, BlockOperation Operation, BlockStatus Status, ulong Sector,
    long SectorCount, uint Checksum)
{
    /// <summary>
    /// Bytes of a record in a capture. Little-endian: 0 start; 8 sector; 16 sectors; 24 checksum (32 bits); 28 latency
    /// (32 bits, saturated); 32 operation (8 bits); 33 status (8 bits); 34 kind (8 bits); 35 to 39 zero.
    /// </summary>
    public const int Size = 40;

    /// <summary>Reads a record of a capture; false when it is none.</summary>
    public static bool TryRead(ReadOnlySpan<byte> from, out TraceRecord record, out TraceRecordKind kind)
    {
        BlockOperation operation = (BlockOperation)from[32];
        BlockStatus status = (BlockStatus)from[33];
        kind = (TraceRecordKind)from[34];
        record = new TraceRecord(
            BinaryPrimitives.ReadInt64LittleEndian(from), BinaryPrimitives.ReadUInt32LittleEndian(from[28..]),
            operation, status,
            BinaryPrimitives.ReadUInt64LittleEndian(from[8..]), BinaryPrimitives.ReadInt64LittleEndian(from[16..]),
            BinaryPrimitives.ReadUInt32LittleEndian(from[24..]));
        return Enum.IsDefined(operation) && Enum.IsDefined(status) && Enum.IsDefined(kind)
            && !from[35..Size].ContainsAnyExcept((byte)0)
            && record is { StartMicroseconds: >= 0, SectorCount: >= 0 };
    }

    /// <summary>Writes it as a record of a capture.</summary>
    public void Write(Span<byte> to, TraceRecordKind kind)
    {
        to[..Size].Clear();
        BinaryPrimitives.WriteInt64LittleEndian(to, StartMicroseconds);
        BinaryPrimitives.WriteUInt64LittleEndian(to[8..], Sector);
        BinaryPrimitives.WriteInt64LittleEndian(to[16..], SectorCount);
        BinaryPrimitives.WriteUInt32LittleEndian(to[24..], Checksum);
        BinaryPrimitives.WriteUInt32LittleEndian(to[28..], (uint)Math.Min(LatencyMicroseconds, uint.MaxValue));
        to[32] = (byte)Operation;
        to[33] = (byte)Status;
        to[34] = (byte)kind;
    }
}
