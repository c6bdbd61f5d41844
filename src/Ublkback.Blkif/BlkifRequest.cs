using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Ublkback.Blkif;

/// <summary>
/// A piece of a request's data: sectors of one granted page. Laid out as in a slot and in a page of segments
/// (struct blkif_request_segment), for 32-bit guests as well.
/// </summary>
/// <param name="Gref">Grant reference of the page.</param>
/// <param name="First">First sector in the page, 0 to 7 in a valid segment.</param>
/// <param name="Last">Last sector in the page, inclusive.</param>
[StructLayout(LayoutKind.Sequential, Size = BlkifAbi.SegmentSize)]
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
/// A private copy of a slot, as the guest wrote it: nothing in it is checked yet. What does not belong to its operation
/// is undefined.
/// </summary>
public struct BlkifRequest
{
    /// <summary>What is asked; may be no operation at all.</summary>
    public BlkifOperation Operation;

    /// <summary>
    /// Number of segments that the guest claims, 0 to 255. In a discard its flag, in an indirect request its operation.
    /// </summary>
    public byte SegmentCount;

    /// <summary>
    /// The guest's own number for the device, of no use to a backend. In an indirect request its number of segments.
    /// </summary>
    public ushort Handle;

    /// <summary>The guest's name for the request, echoed in the response.</summary>
    public ulong Id;

    /// <summary>First sector, in units of 512 bytes.</summary>
    public ulong Sector;

    /// <summary>The segments of a request that has them in its slot.</summary>
    public BlkifSegments Segments;

    /// <summary>For an indirect request, the grant reference of its first page of segments.</summary>
    public uint DescriptorReference;

    /// <summary>For a discard, its number of sectors.</summary>
    public ulong DiscardSectorCount;

    /// <summary>The operation inside an indirect request; any other's own.</summary>
    public readonly BlkifOperation InnerOperation =>
        Operation == BlkifOperation.Indirect ? (BlkifOperation)SegmentCount : Operation;

    /// <summary>Whether a discard asks that nobody can ever read the data again (BLKIF_DISCARD_SECURE).</summary>
    public readonly bool IsSecureDiscard => (SegmentCount & 1) != 0;
}

/// <summary>An answer, as the frontend reads it.</summary>
/// <param name="Id">The request's id.</param>
/// <param name="Operation">
/// The request's operation; of an indirect one the inner, or Linux's blkfront takes the response for a fatal error.
/// </param>
/// <param name="Status">How it went.</param>
public readonly record struct BlkifResponse(ulong Id, BlkifOperation Operation, BlkifStatus Status);
