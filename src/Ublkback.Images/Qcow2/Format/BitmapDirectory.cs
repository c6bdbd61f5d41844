using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using Ublkback.Block;

namespace Ublkback.Images.Qcow2.Format;

/// <summary>
/// Where an image keeps its bitmaps of changed blocks (qcow2 specification, "Bitmaps extension"). They are true only
/// while the header has <see cref="AutoclearFeature"/>, which every program clears that writes the image without
/// bringing them up to date.
/// </summary>
/// <param name="Count">How many bitmaps there are.</param>
/// <param name="Length">Bytes of the directory.</param>
/// <param name="Offset">Where the directory is.</param>
internal sealed record BitmapDirectory(uint Count, long Length, long Offset)
{
    /// <summary>The header extension.</summary>
    public const uint Extension = 0x23852875;

    /// <summary>The bitmaps are true; of the header's autoclear features.</summary>
    public const ulong AutoclearFeature = 1;

    private const int ContentSize = 24;
    private const int EntryHeaderSize = 24;
    private const int MaxCount = 65535; // QCOW2_MAX_BITMAPS
    private const int MaxBytes = 64 << 20; // QCOW2_MAX_BITMAP_DIRECTORY_SIZE: 1024 for each
    private const int MaxTableSize = 0x800_0000; // BME_MAX_TABLE_SIZE

    /// <summary>Reads the content of the header extension. Null if there are no bitmaps.</summary>
    /// <exception cref="TargetException">It is broken.</exception>
    public static BitmapDirectory? Parse(string path, ReadOnlySpan<byte> content)
    {
        if (content.Length < ContentSize)
            throw new TargetException($"{path} is broken: its extension for bitmaps has {content.Length} bytes");
        BitmapDirectory directory = new(
            BinaryPrimitives.ReadUInt32BigEndian(content), BinaryPrimitives.ReadInt64BigEndian(content[8..]),
            BinaryPrimitives.ReadInt64BigEndian(content[16..]));
        return directory.Count == 0 ? null : directory;
    }

    /// <summary>
    /// Reads which ranges of the file the bitmaps take: the directory, their tables, and their clusters. Blocks.
    /// </summary>
    /// <exception cref="TargetException">The directory or a table is broken.</exception>
    public IEnumerable<(long Offset, long Length)> ReadRanges(string path, SafeFileHandle file, Qcow2Layout layout)
    {
        IReadOnlyList<(long Offset, int Size)> tables = ReadTables(path, file, layout);
        yield return (Offset, Length);
        foreach ((long offset, int size) in tables.Where(table => table.Size > 0))
        {
            yield return (offset, (long)size * Qcow2Layout.EntrySize);
            foreach (ulong entry in Qcow2Tables.ReadTable(path, file, layout, offset, size, "a bitmap"))
            {
                long cluster = (long)(entry & L2Entry.OffsetMask);
                if (!layout.IsAligned(cluster)) throw Broken(path, $"an entry of a bitmap is {entry:x16}");
                if (cluster != 0) yield return (cluster, layout.ClusterSize);
            }
        }
    }

    private List<(long Offset, int Size)> ReadTables(string path, SafeFileHandle file, Qcow2Layout layout)
    {
        if (Count > MaxCount || Length is < EntryHeaderSize or > MaxBytes || Offset <= 0 || !layout.IsAligned(Offset))
            throw Broken(path, $"it has {Count} of them in {Length} bytes at {Offset}");
        byte[] bytes = new byte[Length];
        for (int done = 0, read; done < bytes.Length; done += read)
        {
            read = RandomAccess.Read(file, bytes.AsSpan(done), Offset + done);
            if (read == 0) throw Broken(path, "it is cut short");
        }

        // Each: place of its table (8 bytes), entries of it (4), flags (4), type (1), granularity (1), length of its
        // name (2), length of more (4), more, name, up to a multiple of 8.
        List<(long, int)> tables = [];
        long at = 0;
        for (uint i = 0; i < Count; i++)
        {
            if (at > Length - EntryHeaderSize) throw Broken(path, "it is cut short");
            ReadOnlySpan<byte> entry = bytes.AsSpan((int)at);
            long offset = BinaryPrimitives.ReadInt64BigEndian(entry);
            uint size = BinaryPrimitives.ReadUInt32BigEndian(entry[8..]);
            if (offset < 0 || !layout.IsAligned(offset) || size > MaxTableSize)
                throw Broken(path, $"a table of {size} entries is at {offset}");
            tables.Add((offset, (int)size));
            long length = EntryHeaderSize + (long)BinaryPrimitives.ReadUInt32BigEndian(entry[20..])
                + BinaryPrimitives.ReadUInt16BigEndian(entry[18..]);
            at += (length + 7) & ~7L;
        }

        return tables;
    }

    private static TargetException Broken(string path, string how) =>
        new($"{path} is broken: its directory of bitmaps: {how}");
}
