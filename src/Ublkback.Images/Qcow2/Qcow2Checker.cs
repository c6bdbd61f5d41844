using System.Buffers.Binary;
using System.Globalization;
using Microsoft.Win32.SafeHandles;
using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;

namespace Ublkback.Images.Qcow2;

/// <summary>
/// Compares the reference counts of an image that nobody uses with what is referred to, and makes them the same.
/// Blocks; the whole file's counts are in memory, 4 bytes a cluster.
/// </summary>
internal sealed class Qcow2Checker(string path, SafeFileHandle file, long length)
{
    private const int SnapshotHeaderSize = 40;
    private const int MaxSnapshotBytes = 64 << 20; // QCOW_MAX_SNAPSHOTS_SIZE
    private const uint BitmapsExtension = 0x23852875;

    private readonly Qcow2Tables _tables = Qcow2Tables.Read(path, file);
    private readonly Qcow2CheckReport _report = new();
    private uint[] _used = [];

    private Qcow2Layout Layout => _tables.Header.Layout;

    /// <summary>Looks at everything.</summary>
    /// <exception cref="TargetException">The image cannot be read.</exception>
    public Qcow2CheckReport Check()
    {
        _used = new uint[Layout.ClustersFor(length)];
        Qcow2Header header = _tables.Header;
        _report.Total = Layout.ClustersFor(header.VirtualSize);
        if (HasBitmaps())
            Qcow2CheckReport.Add(
                _report.Unrepairable, "it has persistent bitmaps, which only qemu-img check understands");
        Use(0, Layout.ClusterSize, "the header");
        Use(header.RefcountTableOffset, Layout.OffsetOf(header.RefcountTableClusters), "the table of reference counts");
        foreach (ulong block in _tables.RefcountTable)
        {
            if (block != 0) Use((long)block, Layout.ClusterSize, "a block of reference counts");
        }

        UseL1(header.L1Offset, _tables.L1, isActive: true);
        foreach ((long offset, int size) in ReadSnapshots())
            UseL1(offset, Qcow2Tables.ReadTable(path, file, Layout, offset, size, "a snapshot"), isActive: false);
        for (long cluster = 0; cluster < _used.Length; cluster++) Compare(cluster);
        CheckMarks(repair: false);
        return _report;
    }

    /// <summary>
    /// Makes counts and marks what they should be, and takes the bits back that say the image is dirty or broken.
    /// </summary>
    public void Repair()
    {
        Dictionary<long, byte[]> blocks = [];
        for (long cluster = 0; cluster < _used.Length; cluster++)
        {
            if (CountOf(cluster) == _used[cluster]) continue;
            long at = (long)_tables.RefcountTable[cluster / Layout.RefcountsPerBlock];
            if (!blocks.TryGetValue(at, out byte[]? block))
            {
                block = new byte[Layout.ClusterSize];
                RandomAccess.Read(file, block, at);
                blocks.Add(at, block);
            }

            Refcount.Set(block, (int)(cluster % Layout.RefcountsPerBlock), Layout.RefcountOrder, _used[cluster]);
        }

        foreach ((long at, byte[] block) in blocks) RandomAccess.Write(file, block, at);
        CheckMarks(repair: true);
        RandomAccess.FlushToDisk(file);
        if (_tables.Header.Version < 3) return;
        byte[] features = new byte[8];
        BinaryPrimitives.WriteUInt64BigEndian(
            features, _tables.Header.Incompatible & ~(Qcow2Header.DirtyFeature | Qcow2Header.CorruptFeature));
        RandomAccess.Write(file, features, Qcow2Header.IncompatibleAt);
        RandomAccess.FlushToDisk(file);
    }

    private void UseL1(long offset, ulong[] l1, bool isActive)
    {
        Use(offset, (long)l1.Length * Qcow2Layout.EntrySize, "a table of level 1");
        foreach (ulong entry in l1)
        {
            long table = (long)(entry & L2Entry.OffsetMask);
            if (entry == 0) continue;
            if ((entry & ~(L2Entry.OffsetMask | L2Entry.CopiedFlag)) != 0 || !Layout.IsAligned(table)
                || !Use(table, Layout.ClusterSize, "a table of level 2"))
            {
                Qcow2CheckReport.Add(_report.Unrepairable, $"an entry of level 1 is {entry:x16}");
                continue;
            }

            foreach (ulong value in Qcow2Tables.ReadTable(path, file, Layout, table, Layout.EntriesPerTable, "level 2"))
                UseEntry(new L2Entry(value), isActive);
        }
    }

    private void UseEntry(L2Entry entry, bool isActive)
    {
        ClusterKind kind = entry.KindIn(Layout, _tables.Header.Version);
        if (isActive && kind is ClusterKind.Data or ClusterKind.Compressed) _report.Allocated++;
        if (isActive && kind == ClusterKind.Compressed) _report.Compressed++;
        switch (kind)
        {
            case ClusterKind.Invalid:
                Qcow2CheckReport.Add(_report.Unrepairable, $"an entry of level 2 is {entry.Value:x16}");
                break;
            case ClusterKind.Compressed:
                (long offset, int bytes) = entry.CompressedRangeIn(Layout);
                Use(offset, bytes, "a compressed cluster");
                break;
            case ClusterKind.Data or ClusterKind.Zero when entry.HostOffset != 0:
                Use(entry.HostOffset, Layout.ClusterSize, "a cluster of the disk");
                break;
        }
    }

    private bool Use(long offset, long bytes, string what)
    {
        long first = Layout.ClusterOf(offset), end = Layout.ClustersFor(offset + bytes);
        if (offset < 0 || end > _used.Length)
        {
            // The last sector of a compressed cluster may lie behind the end of the file.
            if (offset >= 0 && offset < length && what == "a compressed cluster") end = _used.Length;
            else
            {
                Qcow2CheckReport.Add(
                    _report.Unrepairable,
                    string.Create(
                        CultureInfo.InvariantCulture, $"{what} is at {offset}, behind the file's end at {length}"));
                return false;
            }
        }

        for (long cluster = first; cluster < end; cluster++) _used[cluster]++;
        _report.EndOffset = Math.Max(_report.EndOffset, Layout.OffsetOf(end));
        return true;
    }

    private void Compare(long cluster)
    {
        ulong count = CountOf(cluster);
        if (count == _used[cluster]) return;
        string message = string.Create(
            CultureInfo.InvariantCulture,
            $"cluster {cluster} is used {_used[cluster]} times and counted {count} times");
        if (_used[cluster] > 0 && BlockOf(cluster) == 0)
            Qcow2CheckReport.Add(_report.Unrepairable, $"{message}: its block of counts is missing");
        else if (_used[cluster] > Layout.MaxRefcount) Qcow2CheckReport.Add(_report.Unrepairable, message);
        else Qcow2CheckReport.Add(_report.Repairable, message);
        if (count > _used[cluster]) _report.Leaks++;
        else _report.Errors++;
    }

    private long BlockOf(long cluster)
    {
        long index = cluster / Layout.RefcountsPerBlock;
        long at = index < _tables.RefcountTable.Length ? (long)_tables.RefcountTable[index] : 0;
        return at >= 0 && at < length ? at : 0;
    }

    private readonly byte[] _block = new byte[1 << Qcow2Layout.MaxClusterBits];
    private long _blockAt;

    private ulong CountOf(long cluster)
    {
        long at = BlockOf(cluster);
        if (at == 0) return 0;
        if (at != _blockAt)
        {
            Span<byte> block = _block.AsSpan(0, Layout.ClusterSize);
            block.Clear();
            RandomAccess.Read(file, block, at);
            _blockAt = at;
        }

        return Refcount.Get(_block, (int)(cluster % Layout.RefcountsPerBlock), Layout.RefcountOrder);
    }

    // The mark of being used once must be there exactly when it is true, in the active tables.
    private void CheckMarks(bool repair)
    {
        for (int i = 0; i < _tables.L1.Length; i++)
        {
            long table = (long)(_tables.L1[i] & L2Entry.OffsetMask);
            if (table == 0 || !Layout.IsAligned(table) || Layout.ClusterOf(table) >= _used.Length) continue;
            CheckMark(_tables.L1[i], table, _tables.Header.L1Offset + ((long)i * Qcow2Layout.EntrySize), repair);
            ulong[] entries = Qcow2Tables.ReadTable(path, file, Layout, table, Layout.EntriesPerTable, "level 2");
            for (int j = 0; j < entries.Length; j++)
            {
                L2Entry entry = new(entries[j]);
                ClusterKind kind = entry.KindIn(Layout, _tables.Header.Version);
                if (kind is ClusterKind.Data or ClusterKind.Zero && entry.HostOffset != 0
                    && Layout.ClusterOf(entry.HostOffset) < _used.Length)
                    CheckMark(entry.Value, entry.HostOffset, table + ((long)j * Qcow2Layout.EntrySize), repair);
            }
        }
    }

    private void CheckMark(ulong value, long pointsTo, long at, bool repair)
    {
        bool isUsedOnce = _used[Layout.ClusterOf(pointsTo)] == 1;
        if ((value & L2Entry.CopiedFlag) != 0 == isUsedOnce) return;
        if (!repair)
        {
            _report.Errors++;
            Qcow2CheckReport.Add(
                _report.Repairable,
                string.Create(
                    CultureInfo.InvariantCulture, $"the entry at {at} says wrongly whether its cluster is used once"));
            return;
        }

        byte[] bytes = new byte[Qcow2Layout.EntrySize];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, value ^ L2Entry.CopiedFlag);
        RandomAccess.Write(file, bytes, at);
    }

    // Each: place of its level 1 (8 bytes), entries of it (4), lengths of its id and name (2, 2), …, length of more (4
    // at 36), more, id, name, up to a multiple of 8 (specification, "Snapshots").
    private List<(long Offset, int Size)> ReadSnapshots()
    {
        List<(long, int)> snapshots = [];
        long at = _tables.Header.SnapshotsOffset;
        byte[] head = new byte[SnapshotHeaderSize];
        for (int i = 0; i < _tables.Header.SnapshotCount; i++)
        {
            if (RandomAccess.Read(file, head, at) < SnapshotHeaderSize
                || at - _tables.Header.SnapshotsOffset > MaxSnapshotBytes)
                throw new TargetException($"{path} is broken: its table of snapshots is cut short");
            long offset = BinaryPrimitives.ReadInt64BigEndian(head);
            int size = BinaryPrimitives.ReadInt32BigEndian(head.AsSpan(8));
            if (!Layout.IsAligned(offset) || size is < 0 or > Qcow2Layout.MaxL1Bytes / Qcow2Layout.EntrySize)
                throw new TargetException(
                    $"{path} is broken: a snapshot has a table of {(uint)size} entries at {offset}");
            snapshots.Add((offset, size));
            long bytes = SnapshotHeaderSize + BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(36))
                + BinaryPrimitives.ReadUInt16BigEndian(head.AsSpan(12))
                + BinaryPrimitives.ReadUInt16BigEndian(head.AsSpan(14));
            at += (bytes + 7) & ~7L;
        }

        if (snapshots.Count > 0)
            Use(_tables.Header.SnapshotsOffset, at - _tables.Header.SnapshotsOffset, "the table of snapshots");
        return snapshots;
    }

    private bool HasBitmaps() => _tables.Header.Extensions.Contains(BitmapsExtension);
}
