using System.Numerics;
using System.Runtime.InteropServices;

namespace Ublkback.Block;

/// <summary>The checksum of iSCSI and ext4 (Castagnoli), by the processor's instruction where it has one.</summary>
public static class Crc32C
{
    private const int Lanes = 4;

    /// <summary>
    /// The checksums of blocks of a length, a multiple of 8, that follow each other. Faster than one after the other.
    /// </summary>
    public static void OfEach(ReadOnlySpan<byte> blocks, int blockLength, Span<uint> crcs)
    {
        int i = 0;
        for (; (i + Lanes) * blockLength <= blocks.Length; i += Lanes)
            OfFour(blocks.Slice(i * blockLength, Lanes * blockLength), crcs[i..]);
        for (; i * blockLength < blocks.Length; i++) crcs[i] = Of(blocks.Slice(i * blockLength, blockLength));
    }

    /// <summary>The checksum of some bytes.</summary>
    public static uint Of(ReadOnlySpan<byte> data)
    {
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(data);
        uint crc = uint.MaxValue;
        foreach (ulong word in words) crc = BitOperations.Crc32C(crc, word);
        foreach (byte rest in data[(words.Length * sizeof(ulong))..]) crc = BitOperations.Crc32C(crc, rest);
        return ~crc;
    }

    // The instruction takes three cycles, and another can begin in each.
    private static void OfFour(ReadOnlySpan<byte> blocks, Span<uint> crcs)
    {
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(blocks);
        int count = words.Length / Lanes;
        ReadOnlySpan<ulong> first = words[..count], second = words.Slice(
            count, count), third = words.Slice(2 * count, count), fourth = words.Slice(3 * count, count);
        uint one = uint.MaxValue, two = uint.MaxValue, three = uint.MaxValue, four = uint.MaxValue;
        for (int i = 0; i < count; i++)
        {
            one = BitOperations.Crc32C(one, first[i]);
            two = BitOperations.Crc32C(two, second[i]);
            three = BitOperations.Crc32C(three, third[i]);
            four = BitOperations.Crc32C(four, fourth[i]);
        }

        (crcs[0], crcs[1], crcs[2], crcs[3]) = (~one, ~two, ~three, ~four);
    }
}
