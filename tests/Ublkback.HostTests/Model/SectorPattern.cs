using System.Runtime.InteropServices;

namespace Ublkback.HostTests.Model;

/// <summary>What the model writes to a sector: the number of the write, and the number of the sector.</summary>
internal static class SectorPattern
{
    /// <summary>Bytes of a sector.</summary>
    public const int Size = 512;

    /// <summary>The number that stands for a sector of zeros.</summary>
    public const long Zeros = 0;

    /// <summary>The number that stands for a sector that no write made.</summary>
    public const long Torn = -1;

    /// <summary>Fills sectors with the pattern of a write.</summary>
    public static void Fill(Span<byte> data, long token, int first)
    {
        Span<long> words = MemoryMarshal.Cast<byte, long>(data);
        for (int i = 0; i < words.Length; i++) words[i] = i % 2 == 0 ? token : first + (i / (Size / 8));
    }

    /// <summary>Returns the number of the write that each sector is from.</summary>
    public static long[] Read(ReadOnlySpan<byte> data)
    {
        long[] tokens = new long[data.Length / Size];
        for (int sector = 0; sector < tokens.Length; sector++)
        {
            ReadOnlySpan<long> words = MemoryMarshal.Cast<byte, long>(data.Slice(sector * Size, Size));
            long token = words[0], place = token == Zeros ? 0 : sector;
            bool isWhole = true;
            for (int i = 0; i < words.Length; i++) isWhole &= words[i] == (i % 2 == 0 ? token : place);
            tokens[sector] = isWhole ? token : Torn;
        }

        return tokens;
    }
}
