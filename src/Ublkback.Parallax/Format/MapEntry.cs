using System.Buffers.Binary;

namespace Ublkback.Parallax.Format;

/// <summary>
/// What a node of the map says of a block or of a node below: where it is, and its checksum. The default is: zeros.
/// </summary>
internal readonly record struct MapEntry(BlockAddress Address, uint Crc)
{
    /// <summary>Bytes of an entry.</summary>
    public const int Length = 16;

    /// <summary>Reads an entry of a node.</summary>
    public static MapEntry Read(ReadOnlySpan<byte> node, int index)
    {
        ReadOnlySpan<byte> entry = node.Slice(index * Length, Length);
        return new MapEntry(
            new BlockAddress(BinaryPrimitives.ReadUInt64LittleEndian(entry)),
            BinaryPrimitives.ReadUInt32LittleEndian(entry[8..]));
    }

    /// <summary>Writes it into a node.</summary>
    public void Write(Span<byte> node, int index)
    {
        Span<byte> entry = node.Slice(index * Length, Length);
        BinaryPrimitives.WriteUInt64LittleEndian(entry, Address.Value);
        BinaryPrimitives.WriteUInt32LittleEndian(entry[8..], Crc);
        entry[12..].Clear();
    }
}
