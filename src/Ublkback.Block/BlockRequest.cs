namespace Ublkback.Block;

/// <summary>One request on its way from a ring to an image.</summary>
/// <remarks>
/// Whoever consumes a ring owns its requests and recycles them. From the call of
/// <see cref="IBlockImage.HandleAsync"/> until its result is there the request belongs to the image; it is used on one
/// worker only and is valid everywhere: the range lies inside the image and the data has the length of the range.
/// </remarks>
public class BlockRequest
{
    /// <summary>Bytes in a sector: the unit of all ranges, whatever the sector size of the image (blkif.h).</summary>
    public const int SectorSize = 512;

    /// <summary>What is asked.</summary>
    public BlockOperation Operation { get; set; }

    /// <summary>First sector of the range, in units of 512 bytes.</summary>
    public ulong Sector { get; set; }

    /// <summary>Length of the range in sectors of 512 bytes; 0 for a flush.</summary>
    public long SectorCount { get; set; }

    /// <summary>
    /// The data of a read or write, <see cref="SectorCount"/> × 512 bytes in one piece. It is a private copy of the guest's, so nothing
    /// changes it meanwhile; it starts on a page boundary and never moves, so it may be the target of direct I/O.
    /// </summary>
    public Memory<byte> Data { get; set; }
}
