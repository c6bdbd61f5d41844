using System.Globalization;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.XenStore;

namespace Ublkback.Backend.Xenbus;

/// <summary>
/// Writes a vbd's backend directory (xen/io/blkif.h): its state, and the features and sizes that its frontend reads.
/// </summary>
/// <remarks>
/// Used by the vbd's loop only. Invariants: nodes and the state that announces them are one transaction; a state node
/// that was deleted is never created again. A null value removes a node that the kernel's backend may have written.
/// </remarks>
internal sealed class VbdNodes(XenStoreClient store, string path)
{
    /// <summary>Nodes that a frontend reads before it allocates its rings.</summary>
    public static IEnumerable<(string Name, string? Value)> Offer(int queues) =>
    [
        ("max-ring-page-order", Number(BlkifConstants.MaxRingPageOrder)),
        ("multi-queue-max-queues", Number((ulong)queues)),
        ("feature-max-indirect-segments", Number(BlkifConstants.MaxIndirectSegments)),
    ];

    /// <summary>Nodes that describe the disk of a connected vbd.</summary>
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

    /// <summary>Writes nodes and the state in one transaction. Returns false if the device is gone.</summary>
    public Task<bool> SwitchAsync(XenbusState state, params IEnumerable<(string Name, string? Value)> nodes) =>
        SwitchAsync(null, state, nodes);

    /// <summary>
    /// Writes nodes and the state in one transaction, if the current state is <paramref name="from"/> or that is null.
    /// Returns false if it is another, or the device is gone.
    /// </summary>
    public Task<bool> SwitchAsync(
        XenbusState? from, XenbusState state, params IEnumerable<(string Name, string? Value)> nodes) =>
        store.TransactAsync(async store =>
        {
            string? current = await store.ReadAsync($"{path}/state").ConfigureAwait(false);
            if (current is null || (from is not null && XenbusStates.Parse(current) != from)) return false;
            // The toolstack waits for Closed and nothing else once it has written these two.
            if (state != XenbusState.Closed && XenbusStates.Parse(current) == XenbusState.Closing
                && await store.ReadAsync($"{path}/online").ConfigureAwait(false) == "0")
                return false;
            foreach ((string name, string? value) in nodes)
            {
                if (value is null) await store.RemoveAsync($"{path}/{name}").ConfigureAwait(false);
                else await store.WriteAsync($"{path}/{name}", value).ConfigureAwait(false);
            }

            await store.WriteAsync($"{path}/state", state.ToNode()).ConfigureAwait(false);
            return true;
        });

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
