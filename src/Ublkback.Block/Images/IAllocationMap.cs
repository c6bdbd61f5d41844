namespace Ublkback.Block;

/// <summary>An image that can tell how its sectors are kept, without reading them.</summary>
public interface IAllocationMap : IBlockImage
{
    /// <summary>
    /// Tells how sectors are kept, from the first of a range on as far as they are kept in one way; at least one
    /// sector, unless that cannot be found out. On the worker that serves the image.
    /// </summary>
    ValueTask<SectorRange> MapAsync(ulong sector, long sectorCount);
}

/// <summary>Sectors that are kept in one way.</summary>
/// <param name="Status">Whether it could be found out.</param>
/// <param name="SectorCount">How many.</param>
/// <param name="Depth">In which image of a chain: 0 for the topmost. For sectors that are in none, the depth of the
/// lowest.</param>
/// <param name="IsPresent">Whether that image says something of them; otherwise none does, and they are zeros.</param>
/// <param name="IsZero">Whether they are known to be zeros.</param>
/// <param name="Offset">Where their data is in that image's file, in bytes; null when it is not there as it is
/// read.</param>
public readonly record struct SectorRange(
    BlockStatus Status, long SectorCount, int Depth, bool IsPresent, bool IsZero, long? Offset);
