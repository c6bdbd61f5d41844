using System.Diagnostics;
using System.Runtime.ExceptionServices;

namespace Ublkback.Block;

/// <summary>
/// Checks in Debug builds that a request follows the <see cref="SeamRule"/> where it enters the next layer. Release
/// builds contain no call.
/// </summary>
public static class SeamAssert
{
    /// <summary>Throws if a request is invalid for the image of a geometry.</summary>
    /// <exception cref="InvalidOperationException">The layer above has a bug.</exception>
    [Conditional("DEBUG")]
    public static void IsValid(BlockRequest request, ImageGeometry geometry, string seam) =>
        Fail(seam, SeamRule.FindFault(request, geometry));

    /// <summary>Throws if a request is invalid wherever the image ends.</summary>
    /// <exception cref="InvalidOperationException">The layer above has a bug.</exception>
    [Conditional("DEBUG")]
    public static void HasValidShape(BlockRequest request, ImageGeometry geometry, string seam) =>
        Fail(seam, SeamRule.FindShapeFault(request, geometry));

    /// <summary>Throws if a range of bytes is invalid for a container of a length.</summary>
    /// <exception cref="InvalidOperationException">The layer above has a bug.</exception>
    [Conditional("DEBUG")]
    public static void IsInside(long offset, long byteCount, long length, string seam) =>
        Fail(seam, SeamRule.FindFault(offset, byteCount, length));

    /// <summary>Throws if a request is answered twice, or handed in again before its answer.</summary>
    /// <exception cref="InvalidOperationException">A layer has a bug.</exception>
    [Conditional("DEBUG")]
    public static void IsOnce(bool isOnce, string seam) =>
        Fail(seam, isOnce ? null : "the request is handed in or answered twice");

    /// <summary>Throws an exception again if it is an assertion of this class.</summary>
    [Conditional("DEBUG")]
    internal static void IsNoFault(Exception failure)
    {
        if (failure is SeamFaultException) ExceptionDispatchInfo.Throw(failure);
    }

    private static void Fail(string seam, string? fault)
    {
        if (fault is not null) throw new SeamFaultException($"{seam}: {fault}");
    }
}

/// <summary>A layer broke the rule of a seam. No layer makes a failed request of it: it ends the program.</summary>
internal sealed class SeamFaultException(string message) : InvalidOperationException(message);
