using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using Ublkback.Block;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2.Format;

/// <summary>
/// The header of an image, and the tables that are kept in memory as a whole, read at its opening. Blocks.
/// </summary>
internal sealed class Qcow2Tables
{
    private const int MaxHeaderBytes = 64 << 10;
    private const long MaxOffset = 1L << 56; // of which an entry has the bits

    private Qcow2Tables(Qcow2Header header, Memory<byte> firstSector, ulong[] l1, ulong[] refcountTable)
    {
        Header = header;
        FirstSector = firstSector;
        L1 = l1;
        RefcountTable = refcountTable;
    }

    /// <summary>The header.</summary>
    public Qcow2Header Header { get; }

    /// <summary>The first sector of the file.</summary>
    public Memory<byte> FirstSector { get; }

    /// <summary>The table of level 1.</summary>
    public ulong[] L1 { get; }

    /// <summary>The places of the blocks of reference counts; empty if the table cannot be read.</summary>
    public ulong[] RefcountTable { get; }

    /// <summary>Why a check cannot read the refcount table; null if it can.</summary>
    public string? RefcountTableFault { get; private init; }

    /// <summary>The clusters of bitmaps, which become free with the first change of the image.</summary>
    public IReadOnlyList<long> BitmapClusters { get; set; } = [];

    /// <summary>The clusters of the table of internal snapshots, and of the snapshots' own tables.</summary>
    public IReadOnlyList<long> SnapshotClusters { get; set; } = [];

    /// <summary>Bytes of all tables of level 2 and blocks of reference counts.</summary>
    public long BytesInUse =>
        (long)(L1.Count(entry => entry != 0) + RefcountTable.Count(entry => entry != 0) + L1.Length)
            * Header.Layout.ClusterSize;

    /// <summary>Whether a file of a length has clusters that no block of reference counts is for.</summary>
    public bool HasUncounted(long length)
    {
        long perBlock = Header.Layout.RefcountsPerBlock;
        long blocks = (Header.Layout.ClustersFor(length) + perBlock - 1) / perBlock;
        return blocks > RefcountTable.Length || RefcountTable.AsSpan(0, (int)blocks).Contains(0ul);
    }

    /// <summary>Reads them.</summary>
    /// <exception cref="TargetException">The image cannot be served; the message says why.</exception>
    public static Qcow2Tables Read(string path, SafeFileHandle file)
    {
        Qcow2Header header = ReadHeader(path, file, out byte[] head);
        return new Qcow2Tables(
            header, FirstSectorOf(head), ReadL1(path, file, header), ReadRefcountTable(path, file, header));
    }

    /// <summary>Reads them for a check, which needs no refcount table.</summary>
    /// <exception cref="TargetException">The image cannot be checked; the message says why.</exception>
    public static Qcow2Tables ReadForCheck(string path, SafeFileHandle file)
    {
        Qcow2Header header = ReadHeader(path, file, out byte[] head, isForCheck: true);
        string? fault = header.RefcountTableFault;
        ulong[] refcountTable = [];
        try
        {
            if (fault is null) refcountTable = ReadRefcountTable(path, file, header);
        }
        catch (TargetException failure)
        {
            fault = failure.Message;
        }

        return new Qcow2Tables(header, FirstSectorOf(head), ReadL1(path, file, header), refcountTable)
        {
            RefcountTableFault = fault
        };
    }

    /// <summary>Reads the header alone, and the bytes that it is in.</summary>
    /// <exception cref="TargetException">It is none, or not one that can be served.</exception>
    public static Qcow2Header ReadHeader(string path, SafeFileHandle file, out byte[] head, bool isForCheck = false)
    {
        head = new byte[MaxHeaderBytes];
        int length = RandomAccess.Read(file, head, 0);
        return Qcow2Header.Parse(path, head.AsSpan(0, length), isForCheck);
    }

    private static Memory<byte> FirstSectorOf(byte[] head)
    {
        Memory<byte> firstSector = PinnedMemory.AllocatePages(BlockRequest.SectorSize);
        head.AsSpan(0, BlockRequest.SectorSize).CopyTo(firstSector.Span);
        return firstSector;
    }

    private static ulong[] ReadL1(string path, SafeFileHandle file, Qcow2Header header) =>
        ReadTable(path, file, header.Layout, header.L1Offset, header.L1Size, "level 1");

    private static ulong[] ReadRefcountTable(string path, SafeFileHandle file, Qcow2Header header) => ReadTable(
        path, file, header.Layout, header.RefcountTableOffset,
        header.RefcountTableClusters * header.Layout.EntriesPerTable, "reference counts");

    /// <summary>
    /// Reads entries of 8 bytes. The file's last cluster may be incomplete; what lies behind its end is zeros.
    /// </summary>
    /// <exception cref="TargetException">They are not in the file.</exception>
    public static ulong[] ReadTable(
        string path, SafeFileHandle file, Qcow2Layout layout, long offset, int count, string name)
    {
        if (offset is < 0 or > MaxOffset)
            throw new TargetException($"{path} is broken: its table of {name} is at {offset}");
        ulong[] entries = new ulong[count];
        Span<byte> bytes = MemoryMarshal.AsBytes(entries.AsSpan());
        Span<byte> rest = bytes;
        while (!rest.IsEmpty)
        {
            int done = RandomAccess.Read(file, rest, offset);
            if (done == 0 && rest.Length < Math.Min(bytes.Length, layout.ClusterSize)) break;
            if (done == 0)
                throw new TargetException($"{path} is broken: it ends within its table of {name}: was it cut short?");
            rest = rest[done..];
            offset += done;
        }

        BinaryPrimitives.ReverseEndianness(entries, entries);
        return entries;
    }

    /// <summary>
    /// The clusters that hold tables. Tables of different kinds never share one, so an image in which they do is
    /// broken; what is wrong says <paramref name="conflict"/>, or null.
    /// </summary>
    public ReservedClusters FindReserved(out string? conflict)
    {
        Qcow2Layout layout = Header.Layout;
        ReservedClusters reserved = new(layout);
        reserved.Add(0);
        conflict = null;
        if (!reserved.AddRange(Header.RefcountTableOffset, layout.OffsetOf(Header.RefcountTableClusters)))
            conflict = "its table of reference counts is where another table is";
        if (!reserved.AddRange(Header.L1Offset, (long)L1.Length * Qcow2Layout.EntrySize))
            conflict = "its table of level 1 is where another table is";
        if (Header.SnapshotCount > 0 && !reserved.Add(layout.ClusterOf(Header.SnapshotsOffset)))
            conflict = "its table of snapshots is where another table is";
        foreach (ulong entry in RefcountTable)
        {
            if (entry != 0 && !reserved.Add(layout.ClusterOf((long)entry)))
                conflict = $"its block of reference counts at {entry:x} is where another table is";
        }

        foreach (ulong entry in L1)
        {
            long table = (long)(entry & L2Entry.OffsetMask);
            if (table != 0 && !reserved.Add(layout.ClusterOf(table)))
                conflict = $"its table of level 2 at {table:x} is where another table is";
        }

        foreach (long cluster in SnapshotClusters) reserved.Add(cluster); // a snapshot may share tables with the disk
        return reserved;
    }
}
