using Ublkback.Backend.Grants;
using Ublkback.Backend.Requests;
using Ublkback.Backend.Rings;
using Ublkback.Backend.Xenbus;
using Ublkback.Blkif;
using Ublkback.Linux.Files;
using Ublkback.Linux.Workers;

namespace Ublkback.Backend.Vbds;

/// <summary>The most that a guest can make the daemon hold, as a table for the administrator. Constant.</summary>
public static class BackendLimits
{
    private const long Mebibyte = 1 << 20;

    /// <summary>A row for each bound.</summary>
    public static IReadOnlyList<(string What, string Bound)> All { get; } =
    [
        ("requests in flight of a queue",
            $"{BlkifConstants.SlotCount(BlkifConstants.MaxRingPageOrder)}, as many as its ring has slots"),
        ("queues of a disk", $"{FrontendParameters.MaxQueues}, and not more than workers"),
        ("requests that the rings of a domain hold", $"{RequestBudget.MaxRequests}, then further disks are refused"),
        ("guest data held by a worker",
            $"{Worker.BufferBytes / Mebibyte} MiB, of which a ring an eighth of what it leaves to others, and a "
            + "domain as much as it leaves"),
        ("descriptions of requests held by a worker", $"{Worker.DescriptionBytes / Mebibyte} MiB, likewise"),
        ("a guest's pages kept mapped by a queue",
            $"{PersistentGrants.MaxPagesPerRing}, by a domain half of what the others leave of "
            + $"{GrantBudget.MaxPages}; the rest is copied"),
        ("the kernel's threads for an image that blocks", $"{PuntedFileIo.MaxUnderWay} of each worker"),
        ("notifications without requests",
            $"{EventThrottle.MaxVainEvents} at once, then one in {EventThrottle.MaxMilliseconds} ms of each queue"),
        ("attempts at a request of which daemons die",
            $"{RecoveredRequests.MaxAttempts}, then its disk is quarantined"),
    ];
}
