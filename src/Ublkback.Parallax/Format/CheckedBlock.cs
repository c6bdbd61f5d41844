using System.Buffers.Binary;
using Ublkback.Block;

namespace Ublkback.Parallax.Format;

/// <summary>A block whose last four bytes are the checksum of the others.</summary>
internal static class CheckedBlock
{
    private const int CrcAt = VdiFormat.BlockSize - sizeof(uint);

    /// <summary>Writes the checksum, and gives it.</summary>
    public static uint Seal(Span<byte> block)
    {
        uint crc = Crc32C.Of(block[..CrcAt]);
        BinaryPrimitives.WriteUInt32LittleEndian(block[CrcAt..], crc);
        return crc;
    }

    /// <summary>The checksum that is written there.</summary>
    public static uint CrcOf(ReadOnlySpan<byte> block) => BinaryPrimitives.ReadUInt32LittleEndian(block[CrcAt..]);

    /// <summary>Whether it is right.</summary>
    public static bool IsValid(ReadOnlySpan<byte> block) => Crc32C.Of(block[..CrcAt]) == CrcOf(block);
}
