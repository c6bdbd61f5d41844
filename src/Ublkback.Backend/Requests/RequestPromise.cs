using System.Diagnostics;
using Ublkback.Block;
using Ublkback.Linux.Kernel;

namespace Ublkback.Backend.Requests;

/// <summary>
/// The promise that a request keeps when it enters the image: a range inside the image, in whole sectors, and data of
/// the same length on a page boundary. <see cref="RequestCheck"/> and the buffers provide it; Debug builds assert it.
/// </summary>
internal static class RequestPromise
{
    /// <summary>Ends the process, in Debug builds, if a request breaks the promise: a bug of the backend.</summary>
    /// <param name="request">The request that enters the image.</param>
    /// <param name="geometry">The geometry against which it was checked; the image may have shrunk since.</param>
    [Conditional("DEBUG")]
    public static void Assert(BlockRequest request, ImageGeometry geometry)
    {
        string? breach = FindBreach(request, geometry);
        Debug.Assert(breach is null, breach);
    }

    /// <summary>Returns the part of the promise that a request breaks; null if it keeps all.</summary>
    public static string? FindBreach(BlockRequest request, ImageGeometry geometry)
    {
        bool carriesData = request.Operation is BlockOperation.Read or BlockOperation.Write;
        if (request.Data.Length != (carriesData ? request.SectorCount * BlockRequest.SectorSize : 0))
            return $"a {request.Operation} of {request.SectorCount} sectors has {request.Data.Length} bytes of data";
        if (carriesData && PinnedMemory.AddressNumberOf(request.Data) % MemoryMapping.PageSize != 0)
            return "the data does not start on a page boundary";
        if (request.Operation == BlockOperation.Flush)
            return request.Sector == 0 && request.SectorCount == 0 ? null : "a Flush has a range";

        ulong count = (ulong)request.SectorCount;
        if (request.SectorCount <= 0 || count > geometry.SectorCount || request.Sector > geometry.SectorCount - count)
            return $"{request.SectorCount} sectors at {request.Sector} are outside {geometry.SectorCount}";
        uint unit = (uint)geometry.SectorSize / BlockRequest.SectorSize;
        if (request.Sector % unit != 0 || count % unit != 0)
            return $"the range is not in whole sectors of {geometry.SectorSize} bytes";
        return geometry.IsReadOnly && request.Operation != BlockOperation.Read
            ? $"a {request.Operation} of a read-only image"
            : null;
    }
}
