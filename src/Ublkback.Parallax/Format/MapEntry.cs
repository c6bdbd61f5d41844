using System.Buffers.Binary;

namespace Ublkback.Parallax.Format;

/// <summary>
/// An entry of a node: the place and the checksum of a block of the disk, or of a node below. The default means zeros.
/// </summary>
/// <param name="Address">The place.</param>
/// <param name="Crc">The checksum of what is there.</param>
/// <param name="OlderLevel">
/// Normally 0. Otherwise the place is an older node of this level, which could not be read when this node replaced it:
/// the entry that counts is found by descending from there.
/// </param>
internal readonly record struct MapEntry(BlockAddress Address, uint Crc, int OlderLevel = 0)
{
    /// <summary>Bytes of an entry.</summary>
    public const int Length = 16;

    /// <summary>Reads an entry of a node.</summary>
    public static MapEntry Read(ReadOnlySpan<byte> node, int index)
    {
        ReadOnlySpan<byte> entry = node.Slice(index * Length, Length);
        return new MapEntry(
            new BlockAddress(BinaryPrimitives.ReadUInt64LittleEndian(entry)),
            BinaryPrimitives.ReadUInt32LittleEndian(entry[8..]),
            (int)(BinaryPrimitives.ReadUInt32LittleEndian(entry[12..]) % (MapRoot.MaxDepth + 1)));
    }

    /// <summary>Writes it into a node.</summary>
    public void Write(Span<byte> node, int index)
    {
        Span<byte> entry = node.Slice(index * Length, Length);
        BinaryPrimitives.WriteUInt64LittleEndian(entry, Address.Value);
        BinaryPrimitives.WriteUInt32LittleEndian(entry[8..], Crc);
        BinaryPrimitives.WriteUInt32LittleEndian(entry[12..], (uint)OlderLevel);
    }
}
