using Ublkback.Blkif;
using Ublkback.Block;

namespace Ublkback.Backend;

/// <summary>What is wrong with a guest's request.</summary>
public enum RequestFault
{
    /// <summary>Nothing.</summary>
    None,

    /// <summary>The operation is unknown or not offered.</summary>
    UnknownOperation,

    /// <summary>More segments than a slot has.</summary>
    TooManySegments,

    /// <summary>A read or write without segments.</summary>
    NoSegments,

    /// <summary>A segment ends before it begins, or leaves its page.</summary>
    BadSegment,

    /// <summary>Sectors past the end of the disk.</summary>
    PastEnd,

    /// <summary>Not in whole sectors of a disk with 4096-byte sectors.</summary>
    Unaligned,

    /// <summary>A write to a read-only disk.</summary>
    ReadOnly,
}

/// <summary>The one place where a guest's request is checked; a request that passed is valid everywhere.</summary>
public static class RequestCheck
{
    /// <summary>Checks a copied slot. <paramref name="sectorCount"/> is its length in sectors of 512 bytes.</summary>
    public static RequestFault Check(in BlkifRequest request, in ImageGeometry geometry, out int sectorCount)
    {
        sectorCount = 0;
        if (request.Operation is not (BlkifOperation.Read or BlkifOperation.Write or BlkifOperation.FlushDiskCache))
            return RequestFault.UnknownOperation;
        if (request.SegmentCount > BlkifConstants.MaxDirectSegments) return RequestFault.TooManySegments;

        int total = 0;
        for (int i = 0; i < request.SegmentCount; i++)
        {
            BlkifSegment segment = request.Segments[i];
            if (segment.First > segment.Last || segment.Last >= BlkifConstants.SectorsPerPage)
                return RequestFault.BadSegment;
            total += segment.SectorCount;
        }

        // A flush may carry data that must be written after it, or nothing at all.
        bool isFlush = request.Operation == BlkifOperation.FlushDiskCache;
        if (total == 0) return isFlush ? RequestFault.None : RequestFault.NoSegments;
        if (geometry.IsReadOnly && request.Operation != BlkifOperation.Read) return RequestFault.ReadOnly;

        // Written so that no sum can overflow.
        if ((ulong)total > geometry.SectorCount || request.Sector > geometry.SectorCount - (ulong)total)
            return RequestFault.PastEnd;
        uint unit = (uint)geometry.SectorSize / BlockRequest.SectorSize;
        if (request.Sector % unit != 0 || (uint)total % unit != 0) return RequestFault.Unaligned;

        sectorCount = total;
        return RequestFault.None;
    }
}
