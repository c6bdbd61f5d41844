using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;
using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;

namespace Ublkback.Images.Qcow2;

/// <summary>
/// Writes a new table of reference counts, with new blocks, beside the old one, which lacks blocks or lies where
/// something else is. The header points to the new table last, so an interruption leaves the image as it was. Blocks.
/// </summary>
internal sealed class RefcountRebuilder(string path, SafeFileHandle file, Qcow2Tables tables, bool canGrow)
{
    private Qcow2Layout Layout => tables.Header.Layout;

    /// <summary>Rebuilds.</summary>
    /// <param name="used">How often each cluster of the file is used, the old table and blocks included.</param>
    /// <param name="old">The clusters of the old table and blocks.</param>
    /// <returns>How often each cluster is used now.</returns>
    /// <exception cref="TargetException">There is no space for it.</exception>
    public uint[] Rebuild(uint[] used, IReadOnlyList<long> old)
    {
        (long first, long[] blocks, int tableClusters) = FindPlace(used);
        long end = first + blocks.Length + tableClusters;
        if (end > used.Length) Array.Resize(ref used, checked((int)end));
        for (long cluster = first; cluster < end; cluster++) used[cluster]++;
        foreach (long cluster in old) used[cluster]--;

        byte[] table = new byte[Layout.OffsetOf(tableClusters)];
        byte[] block = new byte[Layout.ClusterSize];
        for (int i = 0; i < blocks.Length; i++)
        {
            block.AsSpan().Clear();
            long start = blocks[i] * Layout.RefcountsPerBlock;
            for (int j = 0; j < Layout.RefcountsPerBlock && start + j < used.Length; j++)
                Refcount.Set(block, j, Layout.RefcountOrder, used[start + j]);
            long offset = Layout.OffsetOf(first + i);
            RandomAccess.Write(file, block, offset);
            BinaryPrimitives.WriteInt64BigEndian(table.AsSpan((int)blocks[i] * Qcow2Layout.EntrySize), offset);
        }

        long tableOffset = Layout.OffsetOf(first + blocks.Length);
        RandomAccess.Write(file, table, tableOffset);
        RandomAccess.FlushToDisk(file);
        byte[] head = new byte[sizeof(long) + sizeof(int)];
        BinaryPrimitives.WriteInt64BigEndian(head, tableOffset);
        BinaryPrimitives.WriteInt32BigEndian(head.AsSpan(sizeof(long)), tableClusters);
        RandomAccess.Write(file, head, Qcow2Header.RefcountTableAt);
        RandomAccess.FlushToDisk(file);
        return used;
    }

    // Neighbouring clusters that nothing uses, for the blocks and the table that count all that is used, and
    // themselves.
    private (long First, long[] Blocks, int TableClusters) FindPlace(uint[] used)
    {
        for (long size = 2; ;)
        {
            long first = FindFree(used, size);
            long[] blocks = FindBlocks(used, first, size);
            int tableClusters = (int)Layout.ClustersFor((blocks[^1] + 1) * Qcow2Layout.EntrySize);
            if (Layout.OffsetOf(tableClusters) > Math.Max(Qcow2Layout.MaxRefcountTableBytes, Layout.ClusterSize))
                throw new TargetException($"{path} cannot be repaired: its reference counts need too large a table");
            if (blocks.Length + tableClusters <= size) return (first, blocks, tableClusters);
            size = blocks.Length + tableClusters;
        }
    }

    private long FindFree(uint[] used, long size)
    {
        long first = 1;
        for (long cluster = 1; cluster < used.Length && cluster < first + size; cluster++)
        {
            if (used[cluster] != 0) first = cluster + 1;
        }

        if (first + size > used.Length && !canGrow)
            throw new TargetException(
                $"{path} cannot be repaired: its device has no {size} free clusters together",
                "make the device larger");
        return first;
    }

    private long[] FindBlocks(uint[] used, long first, long size)
    {
        SortedSet<long> blocks = [];
        for (long cluster = 0; cluster < used.Length; cluster++)
        {
            if (used[cluster] == 0) continue;
            blocks.Add(cluster / Layout.RefcountsPerBlock);
            cluster = ((cluster / Layout.RefcountsPerBlock) + 1) * Layout.RefcountsPerBlock - 1;
        }

        for (long cluster = first; cluster < first + size; cluster++) blocks.Add(cluster / Layout.RefcountsPerBlock);
        return [.. blocks];
    }
}
