using System.Globalization;
using Ublkback.Blkif;
using Ublkback.Block;

namespace Ublkback.Backend.Xenbus;

/// <summary>
/// What a vbd tells its frontend, as nodes of the backend directory (xen/io/blkif.h). A value of null takes a node away
/// that the kernel's backend may have written before the device was taken from it.
/// </summary>
internal static class VbdNodes
{
    /// <summary>What is told before the frontend makes its rings.</summary>
    public static IEnumerable<(string Name, string? Value)> Offer(int queues) =>
    [
        ("max-ring-page-order", Number(BlkifConstants.MaxRingPageOrder)),
        ("multi-queue-max-queues", Number((ulong)queues)),
        ("feature-max-indirect-segments", Number(BlkifConstants.MaxIndirectSegments)),
    ];

    /// <summary>What is told of the disk when it is connected.</summary>
    public static IEnumerable<(string Name, string? Value)> Describe(ImageGeometry geometry, int info) =>
    [
        .. Size(geometry),
        ("sector-size", Number((ulong)geometry.SectorSize)),
        ("physical-sector-size", Number((ulong)geometry.PhysicalSectorSize)),
        ("info", Number((ulong)info)),
        ("feature-flush-cache", "1"),
        ("feature-barrier", "1"),
        ("feature-persistent", "1"),
        .. Discard(geometry.DiscardGranularity),
    ];

    /// <summary>The size of the disk, always in sectors of 512 bytes.</summary>
    public static IEnumerable<(string Name, string? Value)> Size(ImageGeometry geometry) =>
        [("sectors", Number(geometry.SectorCount))];

    private static IEnumerable<(string Name, string? Value)> Discard(int granularity) => granularity == 0
        ? [("feature-discard", null), ("discard-granularity", null), ("discard-alignment", null),
            ("discard-secure", null)]
        :
        [
            ("feature-discard", "1"), ("discard-granularity", Number((ulong)granularity)), ("discard-alignment", "0"),
            ("discard-secure", "0"),
        ];

    private static string Number(ulong value) => value.ToString(CultureInfo.InvariantCulture);
}
