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
internal sealed class Qcow2Checker(string path, SafeFileHandle file, long length, bool canGrow)
{
    private readonly Qcow2Tables _tables = Qcow2Tables.ReadForCheck(path, file);
    private readonly Qcow2CheckReport _report = new();
    private readonly List<long> _refcountClusters = []; // of the table and of the blocks
    private readonly List<long> _bitmapClusters = [];
    private uint[] _used = [];
    private bool _mustRebuild; // blocks are missing, or are where something else is

    private Qcow2Layout Layout => _tables.Header.Layout;

    /// <summary>Looks at everything.</summary>
    /// <exception cref="TargetException">The image cannot be read.</exception>
    public Qcow2CheckReport Check()
    {
        _used = new uint[Layout.ClustersFor(length)];
        Qcow2Header header = _tables.Header;
        _report.Total = Layout.ClustersFor(header.VirtualSize);
        Use(0, Layout.ClusterSize, "the header");
        UseRefcounts();
        UseL1(header.L1Offset, header.L1Size, isActive: true);
        if (header.SnapshotCount > 0)
        {
            SnapshotTable snapshots = SnapshotTable.Read(path, file, header);
            Use(header.SnapshotsOffset, snapshots.Length, "the table of snapshots");
            foreach ((long offset, int size) in snapshots.Level1) UseL1(offset, size, isActive: false);
        }

        foreach ((long offset, long bytes) in header.Bitmaps?.ReadRanges(path, file, Layout) ?? [])
        {
            if (!Use(offset, bytes, "a part of a bitmap")) continue;
            for (long i = 0; i < Layout.ClustersFor(bytes); i++) _bitmapClusters.Add(Layout.ClusterOf(offset) + i);
        }

        foreach (long cluster in _refcountClusters.Where(cluster => _used[cluster] > 1))
            MustRebuild($"cluster {cluster} holds reference counts and something else");
        for (long cluster = 0; cluster < _used.Length; cluster++) Compare(cluster);
        CheckMarks(repair: false);
        return _report;
    }

    /// <summary>
    /// The clusters of bitmaps, after a check; none unless everything is in order, and so nothing else uses them.
    /// </summary>
    public IReadOnlyList<long> BitmapClusters =>
        _report.Leaks + _report.Errors + _report.Unrepairable.Count == 0 ? _bitmapClusters : [];

    /// <summary>
    /// Makes counts and marks what they should be, and takes the bits back that say the image is dirty or broken.
    /// </summary>
    public void Repair()
    {
        if (_mustRebuild)
            _used = new RefcountRebuilder(path, file, _tables, canGrow).Rebuild(_used, _refcountClusters);
        else WriteCounts();
        CheckMarks(repair: true);
        RandomAccess.FlushToDisk(file);
        if (_tables.Header.Version < 3) return;
        byte[] features = new byte[8];
        BinaryPrimitives.WriteUInt64BigEndian(
            features, _tables.Header.Incompatible & ~(Qcow2Header.DirtyFeature | Qcow2Header.CorruptFeature));
        RandomAccess.Write(file, features, Qcow2Header.IncompatibleAt);
        BinaryPrimitives.WriteUInt64BigEndian(
            features, _tables.Header.Autoclear & ((1ul << Qcow2Header.GenerationShift) - 1));
        RandomAccess.Write(file, features, Qcow2Header.AutoclearAt);
        RandomAccess.FlushToDisk(file);
    }

    private void WriteCounts()
    {
        Dictionary<long, byte[]> blocks = [];
        for (long cluster = 0; cluster < _used.Length; cluster++)
        {
            if (CountOf(cluster) == _used[cluster]) continue;
            long at = BlockOf(cluster);
            if (!blocks.TryGetValue(at, out byte[]? block))
            {
                block = new byte[Layout.ClusterSize];
                RandomAccess.Read(file, block, at);
                blocks.Add(at, block);
            }

            Refcount.Set(block, (int)(cluster % Layout.RefcountsPerBlock), Layout.RefcountOrder, _used[cluster]);
        }

        foreach ((long at, byte[] block) in blocks) RandomAccess.Write(file, block, at);
    }

    private void UseRefcounts()
    {
        Qcow2Header header = _tables.Header;
        if (_tables.RefcountTableFault is string fault)
        {
            MustRebuild(fault);
            return;
        }

        UseRefcounts(
            header.RefcountTableOffset, Layout.OffsetOf(header.RefcountTableClusters), "the table of reference counts");
        for (int i = 0; i < _tables.RefcountTable.Length; i++)
        {
            long block = (long)_tables.RefcountTable[i];
            if (block == 0) continue;
            if (Layout.IsTablePlace(block, length)) UseRefcounts(block, Layout.ClusterSize, "a block of counts");
            else MustRebuild($"block {i} of reference counts is at {block:x}, where none can be");
        }
    }

    private void UseRefcounts(long offset, long bytes, string what)
    {
        if (!Use(offset, bytes, what)) return;
        for (long cluster = Layout.ClusterOf(offset); cluster < Layout.ClustersFor(offset + bytes); cluster++)
            _refcountClusters.Add(cluster);
    }

    private void MustRebuild(string why)
    {
        _mustRebuild = true;
        _report.Errors++;
        Qcow2CheckReport.Add(_report.Repairable, why);
    }

    private void UseL1(long offset, int size, bool isActive)
    {
        if (size == 0 || !Use(offset, (long)size * Qcow2Layout.EntrySize, "a table of level 1")) return;
        ulong[] l1 = isActive
            ? _tables.L1
            : Qcow2Tables.ReadTable(path, file, Layout, offset, size, "level 1 of a snapshot");
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
            case ClusterKind.Invalid when isActive && entry.IsZerosAtNoCluster(Layout, _tables.Header.Version):
                _report.Errors++;
                Qcow2CheckReport.Add(_report.Repairable, $"an entry of level 2 is {entry.Value:x16}: it is zeros");
                break;
            case ClusterKind.Invalid:
                Qcow2CheckReport.Add(_report.Unrepairable, $"an entry of level 2 is {entry.Value:x16}");
                break;
            case ClusterKind.Compressed:
                (long offset, int bytes) = entry.CompressedRangeIn(Layout);
                Use(offset, bytes, "a compressed cluster");
                break;
            case ClusterKind.Data or ClusterKind.Zero when IsBehindEnd(entry):
                _report.Errors++;
                Qcow2CheckReport.Add(
                    ZerosEntry is null ? _report.Unrepairable : _report.Repairable,
                    $"a cluster of the disk is at {entry.HostOffset}, behind the file's end at {length}: it is zeros");
                break;
            case ClusterKind.Data or ClusterKind.Zero when entry.HostOffset != 0:
                Use(entry.HostOffset, Layout.ClusterSize, "a cluster of the disk");
                break;
        }
    }

    private bool IsBehindEnd(L2Entry entry) => entry.HostOffset >= length;

    // What says of a cluster that it is zeros; null where nothing can.
    private ulong? ZerosEntry => _tables.Header.Version >= 3 ? L2Entry.ZeroFlag
        : _tables.Header.BackingFile is null ? 0ul : null;

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
        if (_used[cluster] > Layout.MaxRefcount) Qcow2CheckReport.Add(_report.Unrepairable, message);
        else Qcow2CheckReport.Add(_report.Repairable, message);
        _mustRebuild |= _used[cluster] > 0 && BlockOf(cluster) == 0;
        if (count > _used[cluster]) _report.Leaks++;
        else _report.Errors++;
    }

    private long BlockOf(long cluster)
    {
        long index = cluster / Layout.RefcountsPerBlock;
        long at = index < _tables.RefcountTable.Length ? (long)_tables.RefcountTable[index] : 0;
        return Layout.IsTablePlace(at, length) ? at : 0;
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
                long at = table + ((long)j * Qcow2Layout.EntrySize);
                if (repair && entry.IsZerosAtNoCluster(Layout, _tables.Header.Version))
                    WriteEntry(at, L2Entry.ZeroFlag);
                if (entry.KindIn(Layout, _tables.Header.Version) is not (ClusterKind.Data or ClusterKind.Zero)
                    || entry.HostOffset == 0) continue;
                if (!IsBehindEnd(entry)) CheckMark(entry.Value, entry.HostOffset, at, repair);
                else if (repair && ZerosEntry is ulong zeros) WriteEntry(at, zeros);
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

        WriteEntry(at, value ^ L2Entry.CopiedFlag);
    }

    private void WriteEntry(long at, ulong value)
    {
        byte[] bytes = new byte[Qcow2Layout.EntrySize];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, value);
        RandomAccess.Write(file, bytes, at);
    }
}
