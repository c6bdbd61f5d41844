using System.Buffers.Binary;
using System.Text;
using Ublkback.Images.Qcow2.Format;

namespace Ublkback.Images.Qcow2;

/// <summary>Makes empty images of version 3. Blocks.</summary>
internal static class Qcow2Creator
{
    private const int RefcountOrder = 4;

    /// <summary>
    /// The bytes at the start of an empty image: header, table of reference counts, its first block, and level 1.
    /// </summary>
    /// <param name="virtualSize">Bytes of the disk.</param>
    /// <param name="clusterBits">A cluster has 2^this bytes.</param>
    /// <param name="backing">The backing file and its format; null for none.</param>
    public static byte[] Make(long virtualSize, int clusterBits, (string Name, string Format)? backing)
    {
        Qcow2Layout layout = new(clusterBits, RefcountOrder);
        int l1Size = (int)layout.L1EntriesFor(virtualSize);
        long l1Clusters = layout.ClustersFor((long)l1Size * Qcow2Layout.EntrySize);
        long clusters = 3 + l1Clusters;
        int blocks = 1;
        while (clusters + blocks - 1 > (long)blocks * layout.RefcountsPerBlock) blocks++;
        clusters += blocks - 1;
        byte[] image = new byte[layout.OffsetOf(clusters)];
        long l1Offset = l1Size == 0 ? 0 : layout.OffsetOf(2 + blocks);
        Span<byte> header = image;
        "QFI"u8.CopyTo(header);
        header[3] = 0xFB;
        Put(header, 4, 3u);
        Put(header, 20, (uint)clusterBits);
        Put(header, Qcow2Header.VirtualSizeAt, (ulong)virtualSize);
        Put(header, Qcow2Header.L1SizeAt, (uint)l1Size);
        Put(header, Qcow2Header.L1OffsetAt, (ulong)l1Offset);
        Put(header, Qcow2Header.RefcountTableAt, (ulong)layout.ClusterSize);
        Put(header, Qcow2Header.RefcountTableAt + 8, 1u);
        Put(header, 96, RefcountOrder);
        Put(header, 100, Qcow2Header.Version3Length);
        int at = Qcow2Header.Version3Length;
        if (backing is (string name, string format))
        {
            at = AddExtension(header, at, Qcow2Header.BackingFormatExtension, Encoding.UTF8.GetBytes(format));
            byte[] nameBytes = Encoding.UTF8.GetBytes(name);
            nameBytes.CopyTo(header[(at + 8)..]); // after the end of the extensions
            Put(header, 8, (ulong)(at + 8));
            Put(header, 16, (uint)nameBytes.Length);
        }

        for (int i = 0; i < blocks; i++)
            Put(header[layout.ClusterSize..], i * Qcow2Layout.EntrySize, (ulong)layout.OffsetOf(2 + i));
        for (int i = 0; i < clusters; i++) Refcount.Set(header[(int)layout.OffsetOf(2)..], i, RefcountOrder, 1);
        return image;
    }

    private static int AddExtension(Span<byte> header, int at, uint type, byte[] content)
    {
        Put(header, at, type);
        Put(header, at + 4, (uint)content.Length);
        content.CopyTo(header[(at + 8)..]);
        return at + 8 + ((content.Length + 7) & ~7);
    }

    private static void Put(Span<byte> bytes, int at, uint value) =>
        BinaryPrimitives.WriteUInt32BigEndian(bytes[at..], value);

    private static void Put(Span<byte> bytes, int at, ulong value) =>
        BinaryPrimitives.WriteUInt64BigEndian(bytes[at..], value);
}
