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
            $"both heads of {container.Path} are damaged: nothing tells where its data is", "restore it from a copy");

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

    /// <summary>Reads whose it is, and its heads, the newest first. A new VDI has one. Blocks the thread.</summary>
    /// <exception cref="TargetException">It is none, or it is damaged; the message says how.</exception>
    public static (VdiSuperblock Superblock, IReadOnlyList<VdiHead> Heads) ReadHeads(IVdiContainer container)
    {
        byte[] blocks = new byte[(int)VdiFormat.HolderBlock * VdiFormat.BlockSize];
        Read(container, VdiFormat.SuperblockBlock, blocks);
        VdiSuperblock superblock = VdiSuperblock.Read(blocks.AsSpan(0, VdiFormat.BlockSize), container.Path);
        VdiHead?[] heads = [VdiHead.TryRead(blocks.AsSpan(VdiFormat.BlockSize, VdiFormat.BlockSize)),
            VdiHead.TryRead(blocks.AsSpan(2 * VdiFormat.BlockSize, VdiFormat.BlockSize))];
        return (superblock, [.. heads.OfType<VdiHead>().OrderByDescending(head => head.Generation)]);
    }

    /// <summary>
    /// Returns the first blocks of a new VDI's file. The VDI is empty, or has the content of a snapshot.
    /// </summary>
    /// <exception cref="TargetException">A VDI cannot have the size.</exception>
    public static byte[] Make(VdiSuperblock superblock, VdiVersion content, string origin)
    {
        VdiFormat.CheckSize(content.Size);
        byte[] blocks = new byte[(int)(VdiFormat.HolderBlock + 1) * VdiFormat.BlockSize];
        superblock.ToBlock().CopyTo(blocks, 0);
        VdiHead head = new(1, 0, content, 1, default, 0, origin);
        head.Write(blocks.AsSpan((int)head.Block * VdiFormat.BlockSize, VdiFormat.BlockSize));
        return blocks;
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
