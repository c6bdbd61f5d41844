using System.Runtime.CompilerServices;

namespace Ublkback.Blkif;

/// <summary>A piece of a request's data: sectors of one granted page.</summary>
/// <param name="Gref">Grant reference of the page.</param>
/// <param name="First">First sector in the page, 0 to 7 in a valid segment.</param>
/// <param name="Last">Last sector in the page, inclusive.</param>
public readonly record struct BlkifSegment(uint Gref, byte First, byte Last)
{
    /// <summary>Sectors of 512 bytes; meaningful in a valid segment only.</summary>
    public int SectorCount => Last - First + 1;
}

/// <summary>The segments of one slot.</summary>
[InlineArray(BlkifConstants.MaxDirectSegments)]
public struct BlkifSegments
{
    private BlkifSegment _first;
}

/// <summary>
/// A private copy of a slot, as the guest wrote it: nothing in it is checked yet. Segments beyond
/// <see cref="SegmentCount"/> are whatever was in the slot.
/// </summary>
public struct BlkifRequest
{
    /// <summary>What is asked; may be no operation at all.</summary>
    public BlkifOperation Operation;

    /// <summary>Number of segments that the guest claims, 0 to 255.</summary>
    public byte SegmentCount;

    /// <summary>The guest's own number for the device; of no use to a backend.</summary>
    public ushort Handle;

    /// <summary>The guest's name for the request, echoed in the response.</summary>
    public ulong Id;

    /// <summary>First sector, in units of 512 bytes.</summary>
    public ulong Sector;

    /// <summary>The segments.</summary>
    public BlkifSegments Segments;

    /// <summary>
    /// What a response names: for an indirect request the operation inside it, which is where others have their number
    /// of segments. Linux's blkfront takes anything else for a fatal error.
    /// </summary>
    public readonly BlkifOperation AnsweredOperation =>
        Operation == BlkifOperation.Indirect ? (BlkifOperation)SegmentCount : Operation;
}

/// <summary>An answer, as the frontend reads it.</summary>
/// <param name="Id">The request's id.</param>
/// <param name="Operation">The request's operation.</param>
/// <param name="Status">How it went.</param>
public readonly record struct BlkifResponse(ulong Id, BlkifOperation Operation, BlkifStatus Status);
