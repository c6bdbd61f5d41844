namespace Ublkback.Block;

/// <summary>The rule of every seam: what a valid request looks like.</summary>
internal static class SeamRule
{
    /// <summary>Returns the reason why a request is invalid for an image of a geometry; null if it is valid.</summary>
    public static string? FindFault(BlockRequest request, ImageGeometry geometry)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(geometry);
        (ulong sector, long count) = (request.Sector, request.SectorCount);
        if (request.Operation == BlockOperation.Flush) return count == 0 ? null : "a flush with data";
        if (count <= 0) return $"{count} sectors";
        // Written so that no sum can overflow.
        if ((ulong)count > geometry.SectorCount || sector > geometry.SectorCount - (ulong)count)
            return $"{count} sectors at {sector} of {geometry.SectorCount}";
        return FindShapeFault(request, geometry);
    }

    /// <summary>
    /// Returns the reason why a request is invalid wherever the image ends; null if it is valid. For images whose
    /// storage grows or shrinks while requests are in flight.
    /// </summary>
    public static string? FindShapeFault(BlockRequest request, ImageGeometry geometry)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(geometry);
        (BlockOperation operation, ulong sector, long count) =
            (request.Operation, request.Sector, request.SectorCount);
        if (operation == BlockOperation.Flush) return count == 0 ? null : "a flush with data";
        if (count <= 0) return $"{count} sectors";
        uint unit = (uint)geometry.SectorSize / BlockRequest.SectorSize;
        if (sector % unit != 0 || count % unit != 0) return $"not in whole sectors of {geometry.SectorSize} bytes";
        if (geometry.IsReadOnly && operation != BlockOperation.Read) return $"a {operation} on a read-only disk";
        if (operation == BlockOperation.Discard)
            return geometry.DiscardGranularity == 0 ? "a discard, which is not offered" : null;
        return request.Data.Length == count * BlockRequest.SectorSize
            ? null
            : $"{request.Data.Length} bytes of data for {count} sectors";
    }

    /// <summary>
    /// Returns the reason why a range of bytes is invalid for a container of a length; null if it is valid.
    /// </summary>
    public static string? FindFault(long offset, long byteCount, long length)
    {
        if (offset < 0 || byteCount <= 0 || offset > length - byteCount)
            return $"{byteCount} bytes at {offset} of {length}";
        return offset % BlockRequest.SectorSize != 0 || byteCount % BlockRequest.SectorSize != 0
            ? $"{byteCount} bytes at {offset}: not in whole sectors"
            : null;
    }
}
