using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using Ublkback.Block;

namespace Ublkback.Images.Qcow2.Format;

/// <summary>The table of internal snapshots (qcow2 specification, "Snapshots"). Blocks.</summary>
/// <param name="Level1">The place of each snapshot's table of level 1, and how many entries it has.</param>
/// <param name="Length">Bytes of the table of snapshots itself.</param>
internal sealed record SnapshotTable(IReadOnlyList<(long Offset, int Size)> Level1, long Length)
{
    /// <summary>Most bytes of snapshots' tables of level 1 that <see cref="FindClusters"/> reads.</summary>
    public const long MaxL1BytesRead = 4 << 20;

    private const int EntryHeaderSize = 40;
    private const int MaxBytes = 64 << 20; // QCOW_MAX_SNAPSHOTS_SIZE

    /// <summary>Reads the table.</summary>
    /// <exception cref="TargetException">It is broken.</exception>
    public static SnapshotTable Read(string path, SafeFileHandle file, Qcow2Header header)
    {
        // Each: place of its level 1 (8 bytes), entries of it (4), lengths of its id and name (2, 2), …, length of more
        // (4 at 36), more, id, name, up to a multiple of 8.
        List<(long, int)> snapshots = [];
        long at = header.SnapshotsOffset;
        byte[] head = new byte[EntryHeaderSize];
        for (int i = 0; i < header.SnapshotCount; i++)
        {
            if (RandomAccess.Read(file, head, at) < EntryHeaderSize || at - header.SnapshotsOffset > MaxBytes)
                throw new TargetException($"{path} is broken: its table of snapshots is cut short");
            long offset = BinaryPrimitives.ReadInt64BigEndian(head);
            int size = BinaryPrimitives.ReadInt32BigEndian(head.AsSpan(8));
            if (offset < 0 || !header.Layout.IsAligned(offset)
                || size is < 0 or > Qcow2Layout.MaxL1Bytes / Qcow2Layout.EntrySize)
                throw new TargetException(
                    $"{path} is broken: a snapshot has a table of {(uint)size} entries at {offset}");
            snapshots.Add((offset, size));
            long bytes = EntryHeaderSize + BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(36))
                + BinaryPrimitives.ReadUInt16BigEndian(head.AsSpan(12))
                + BinaryPrimitives.ReadUInt16BigEndian(head.AsSpan(14));
            at += (bytes + 7) & ~7L;
        }

        return new SnapshotTable(snapshots, at - header.SnapshotsOffset);
    }

    /// <summary>
    /// Finds the clusters of the table, and of the snapshots' tables of both levels: of one snapshot after the other,
    /// until <see cref="MaxL1BytesRead"/> are read. Broken tables are left out.
    /// </summary>
    public IReadOnlyList<long> FindClusters(string path, SafeFileHandle file, Qcow2Header header)
    {
        Qcow2Layout layout = header.Layout;
        HashSet<long> clusters = [];
        Add(header.SnapshotsOffset, Length);
        long read = 0;
        foreach ((long offset, int size) in Level1)
        {
            read += (long)size * Qcow2Layout.EntrySize;
            if (read > MaxL1BytesRead) break;
            try
            {
                ulong[] l1 = Qcow2Tables.ReadTable(path, file, layout, offset, size, "level 1 of a snapshot");
                Add(offset, (long)size * Qcow2Layout.EntrySize);
                foreach (ulong entry in l1)
                {
                    long table = (long)(entry & L2Entry.OffsetMask);
                    if (table != 0) clusters.Add(layout.ClusterOf(table));
                }
            }
            catch (TargetException)
            {
                // A check says so. The disk does not need it.
            }
        }

        return [.. clusters];

        void Add(long start, long length)
        {
            for (long cluster = layout.ClusterOf(start); cluster < layout.ClustersFor(start + length); cluster++)
                clusters.Add(cluster);
        }
    }
}
