using Ublkback.Block;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Containers;

/// <summary>What a VDI's file says of itself, without its log.</summary>
/// <param name="Superblock">Whose it is.</param>
/// <param name="Head">Where everything is.</param>
/// <param name="Snapshots">The snapshots as of the head.</param>
internal sealed record VdiMetadata(VdiSuperblock Superblock, VdiHead Head, IReadOnlyList<VdiSnapshot> Snapshots)
{
    /// <summary>Reads it. Blocks the thread.</summary>
    /// <exception cref="TargetException">It is none, or it is damaged; the message says how.</exception>
    public static VdiMetadata Read(IVdiContainer container) =>
        ReadHeads(container) is (VdiSuperblock superblock, [VdiHead head, ..])
        ? Read(container, superblock, head)
        : throw new TargetException(
            $"both heads of {container.Path} and their copies are damaged: nothing tells where its data is",
            "restore it from a backup");

    /// <summary>Reads what one of its heads tells. Blocks the thread.</summary>
    /// <exception cref="TargetException">It is damaged; the message says how.</exception>
    public static VdiMetadata Read(IVdiContainer container, VdiSuperblock superblock, VdiHead head)
    {
        byte[] table = new byte[head.TableBlocks * VdiFormat.BlockSize];
        if (table.Length > 0) Read(container, head.Table.Address.Block, table);
        if (table.Length > 0 && Crc32C.Of(table) != head.Table.Crc)
            throw new TargetException(
                $"the table of the snapshots of {container.Path} is damaged: its checksum is wrong");
        return new VdiMetadata(superblock, head, [.. SnapshotTable.Read(table, head.SnapshotCount)]);
    }

    /// <summary>
    /// Reads the superblock and the heads, the newest first, from wherever they are whole. Blocks the thread.
    /// </summary>
    /// <exception cref="TargetException">The superblock and its copy are damaged, or the VDI has another version.
    /// </exception>
    public static (VdiSuperblock Superblock, IReadOnlyList<VdiHead> Heads) ReadHeads(IVdiContainer container)
    {
        EssentialBlocks blocks = EssentialBlocks.Read(container);
        return (blocks.Superblock, blocks.Heads);
    }

    /// <summary>
    /// Returns the first blocks of a new VDI's file. The VDI is empty, or has the content of a snapshot.
    /// </summary>
    /// <exception cref="TargetException">A VDI cannot have the size.</exception>
    public static byte[] Make(
        VdiSuperblock superblock, VdiVersion content, string origin, bool isUnfinished = false)
    {
        VdiFormat.CheckSize(content.Size);
        byte[] blocks = new byte[(int)(VdiFormat.HolderBlock + 1) * VdiFormat.BlockSize];
        superblock.ToBlock().CopyTo(blocks, 0);
        VdiHead head = new(1, 0, content, 1, default, 0, origin, isUnfinished);
        head.Write(blocks.AsSpan((int)head.Block * VdiFormat.BlockSize, VdiFormat.BlockSize), superblock.Id);
        return blocks;
    }

    /// <summary>Returns the copy of what is essential for a new VDI: its first blocks, and two marks.</summary>
    public static byte[] MakeCopy(VdiSuperblock superblock, ReadOnlySpan<byte> blocks)
    {
        byte[] copy = new byte[VdiFormat.CopyBlocks * VdiFormat.BlockSize];
        blocks[..(int)VdiFormat.OffsetOf(VdiFormat.FirstMarkBlock)].CopyTo(copy);
        // The first head is in both places, so that an empty one is damage.
        for (long block = VdiFormat.FirstHeadBlock; block <= VdiFormat.FirstHeadBlock + 1; block++)
            blocks.Slice((int)VdiFormat.OffsetOf(VdiFormat.FirstHeadBlock + 1), VdiFormat.BlockSize)
                .CopyTo(copy.AsSpan((int)VdiFormat.OffsetOf(block)));
        for (ulong count = 0; count < 2; count++)
        {
            VdiMark mark = new(superblock.Id, count, 0);
            mark.ToBlock().CopyTo(copy, VdiFormat.OffsetOf(mark.Block));
        }

        return copy;
    }

    private static void Read(IVdiContainer container, long block, Span<byte> target)
    {
        try
        {
            container.Read(block, target);
        }
        catch (IOException failure)
        {
            throw new TargetException($"{container.Path} cannot be read: {failure.Message}", failure);
        }
    }
}
