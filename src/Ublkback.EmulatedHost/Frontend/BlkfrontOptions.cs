using Ublkback.Blkif;

namespace Ublkback.EmulatedHost.Frontend;

/// <summary>How a frontend connects. Each is what blkfront's module parameters and its age decide.</summary>
/// <param name="Abi">Layout of its slots.</param>
/// <param name="RingPageOrder">Its rings have 2^order pages; null: one page, the old way.</param>
/// <param name="Queues">Number of queues.</param>
/// <param name="IsPersistent">Whether it keeps its pages granted.</param>
/// <param name="MaxSegments">Most pages in a request; beyond 11 they are indirect.</param>
public sealed record BlkfrontOptions(
    BlkifAbi Abi, int? RingPageOrder = null, int Queues = 1, bool IsPersistent = false,
    int MaxSegments = BlkifConstants.MaxDirectSegments);
