using Ublkback.Backend.Report;
using Ublkback.Blkif;
using Ublkback.Block;

namespace Ublkback.Backend.Requests;

/// <summary>The one place where a guest's request is checked; a request that passed is valid everywhere.</summary>
[DataPath]
internal static class RequestCheck
{
    /// <summary>
    /// Checks what the slot alone tells: the operation and the number of segments. <paramref name="segmentCount"/> is
    /// how many there are, in the slot or in a page that it names.
    /// </summary>
    public static RequestFault CheckSlot(in BlkifRequest request, ImageGeometry geometry, out int segmentCount)
    {
        bool isIndirect = request.Operation == BlkifOperation.Indirect;
        segmentCount =
            request.Operation == BlkifOperation.Discard ? 0 : isIndirect ? request.Handle : request.SegmentCount;
        switch (request.Operation)
        {
            case BlkifOperation.Discard when geometry.DiscardGranularity == 0 || request.IsSecureDiscard:
                return RequestFault.UnknownOperation;
            case BlkifOperation.Indirect
                when request.InnerOperation is not (BlkifOperation.Read or BlkifOperation.Write):
                return RequestFault.UnknownOperation;
            case BlkifOperation.Read or BlkifOperation.Write or BlkifOperation.WriteBarrier
                or BlkifOperation.FlushDiskCache or BlkifOperation.Discard or BlkifOperation.Indirect:
                return segmentCount
                    > (isIndirect ? BlkifConstants.MaxIndirectSegments : BlkifConstants.MaxDirectSegments)
                    ? RequestFault.TooManySegments
                    : RequestFault.None;
            default:
                return RequestFault.UnknownOperation;
        }
    }

    /// <summary>
    /// Checks the segments of a request whose slot is right. <paramref name="sectorCount"/> is its length in sectors of
    /// 512 bytes.
    /// </summary>
    public static RequestFault CheckRange(
        in BlkifRequest request, ReadOnlySpan<BlkifSegment> segments, ImageGeometry geometry, out long sectorCount)
    {
        sectorCount = 0;
        BlkifOperation operation = request.InnerOperation;
        ulong total = operation == BlkifOperation.Discard ? request.DiscardSectorCount : 0;
        foreach (BlkifSegment segment in segments)
        {
            if (segment.First > segment.Last || segment.Last >= BlkifConstants.SectorsPerPage)
                return RequestFault.BadSegment;
            total += (ulong)segment.SectorCount;
        }

        // A flush or barrier may carry data, or nothing at all.
        if (total == 0)
        {
            return operation is BlkifOperation.FlushDiskCache or BlkifOperation.WriteBarrier
                ? RequestFault.None
                : RequestFault.NoSectors;
        }

        if (geometry.IsReadOnly && operation != BlkifOperation.Read) return RequestFault.ReadOnly;

        // Written so that no sum can overflow.
        if (total > geometry.SectorCount || request.Sector > geometry.SectorCount - total) return RequestFault.PastEnd;
        uint unit = (uint)geometry.SectorSize / BlockRequest.SectorSize;
        if (request.Sector % unit != 0 || total % unit != 0) return RequestFault.Unaligned;

        sectorCount = (long)total;
        return RequestFault.None;
    }
}
