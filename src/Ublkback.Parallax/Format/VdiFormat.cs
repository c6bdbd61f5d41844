using Ublkback.Block;

namespace Ublkback.Parallax.Format;

/// <summary>The numbers of the format (docs/PARALLAX-FORMAT.md). Everything is little-endian.</summary>
internal static class VdiFormat
{
    /// <summary>The version that is written and read.</summary>
    public const uint Version = 2;

    /// <summary>Bytes of a block: the unit of the map, of addresses and of the log.</summary>
    public const int BlockSize = 4096;

    /// <summary>Blocks of a segment: the unit in which a VDI's file is allocated.</summary>
    public const int SegmentBlocks = 1024;

    /// <summary>Bytes of a segment.</summary>
    public const int SegmentSize = SegmentBlocks * BlockSize;

    /// <summary>Where the superblock is.</summary>
    public const long SuperblockBlock = 0;

    /// <summary>Where the first of the two heads is; the other one follows.</summary>
    public const long FirstHeadBlock = 1;

    /// <summary>Where it is noted who has the VDI open for writing.</summary>
    public const long HolderBlock = 3;

    /// <summary>
    /// Where the first of two marks is in the copy of what is essential. The blocks before are those of the file.
    /// </summary>
    public const long FirstMarkBlock = 3;

    /// <summary>Blocks of that copy: superblock, two heads, two marks.</summary>
    public const int CopyBlocks = 5;

    /// <summary>Largest VDI in bytes: 128 TiB.</summary>
    public const long MaxSize = 1L << 47;

    /// <summary>The largest container of a VDI, in bytes: the disk, its snapshots' blocks and the log.</summary>
    public const long MaxContainerSize = 4 * MaxSize;

    /// <summary>Snapshots of a VDI at most, so that their table fits in a segment.</summary>
    public const int MaxSnapshots = SegmentBlocks * (BlockSize / VdiSnapshot.Length);

    /// <summary>Refuses sizes that a VDI cannot have.</summary>
    /// <exception cref="TargetException">The size is not positive, too large, or not a multiple of 512.</exception>
    public static void CheckSize(long size)
    {
        if (size is <= 0 or > MaxSize || size % BlockRequest.SectorSize != 0)
            throw new TargetException(
                $"a VDI cannot have {size} bytes", $"give a multiple of {BlockRequest.SectorSize}, 128T at most");
    }

    /// <summary>Returns the error for a version that is not <see cref="Version"/>.</summary>
    public static TargetException ExplainVersion(uint version, string where) => new(
        $"{where} has version {version} of the format, and this program reads only version {Version}",
        "export the VDIs with the program that created them, and import them with this one");

    /// <summary>Where block n of a file begins, in bytes.</summary>
    public static long OffsetOf(long block) => block * BlockSize;

    /// <summary>The segment that a block is in.</summary>
    public static long SegmentOf(long block) => block / SegmentBlocks;

    /// <summary>Blocks that a disk of a size has.</summary>
    public static long BlocksFor(long byteCount) => (byteCount + BlockSize - 1) / BlockSize;
}
