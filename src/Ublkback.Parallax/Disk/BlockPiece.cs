using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Disk;

/// <summary>The first piece of a range of a disk: as many whole blocks as there are, or a part of one.</summary>
/// <param name="Block">The first block.</param>
/// <param name="Skip">Where in it the piece begins, in bytes.</param>
/// <param name="Length">Bytes of the piece.</param>
internal readonly record struct BlockPiece(long Block, int Skip, int Length)
{
    /// <summary>Whether it consists of whole blocks.</summary>
    public bool IsWhole => Length % VdiFormat.BlockSize == 0;

    /// <summary>The first piece of a range that is not empty.</summary>
    public static BlockPiece FirstOf(long offset, int length)
    {
        int skip = (int)(offset % VdiFormat.BlockSize);
        bool isWhole = skip == 0 && length >= VdiFormat.BlockSize;
        return new BlockPiece(
            offset / VdiFormat.BlockSize, skip,
            isWhole
                ? length / VdiFormat.BlockSize * VdiFormat.BlockSize
                : Math.Min(length, VdiFormat.BlockSize - skip));
    }
}
