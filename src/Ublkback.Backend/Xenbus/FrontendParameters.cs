using System.Globalization;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.XenStore;

namespace Ublkback.Backend.Xenbus;

/// <summary>A frontend described its rings wrongly. The message says how.</summary>
internal sealed class FrontendException(string message) : UserException(message);

/// <summary>
/// The rings of a frontend, read from its xenstore directory. The nodes are hostile input: everything here is checked.
/// </summary>
/// <param name="Abi">Layout of the slots.</param>
/// <param name="RingPageOrder">Each ring has 2^order pages.</param>
/// <param name="IsPersistent">Whether the frontend keeps its pages granted.</param>
/// <param name="Queues">The queues, at least one.</param>
internal sealed record FrontendParameters(
    BlkifAbi Abi, int RingPageOrder, bool IsPersistent, IReadOnlyList<FrontendQueue> Queues)
{
    /// <summary>Most queues of a vbd, on a machine with as many cores.</summary>
    public const int MaxQueues = 16;

    /// <summary>Reads the nodes of a frontend. Any thread.</summary>
    /// <exception cref="FrontendException">A node is missing or invalid.</exception>
    public static async Task<FrontendParameters> ReadAsync(IXenStore store, string frontendPath, int offeredQueues)
    {
        string? protocol = await store.ReadAsync($"{frontendPath}/protocol").ConfigureAwait(false);
        BlkifAbi abi = BlkifAbi.FromProtocol(protocol)
            ?? throw new FrontendException($"the frontend's protocol {Quote(protocol!)} is unknown");
        uint? queues = await NumberAsync(
            store, frontendPath, "multi-queue-num-queues", 1, (uint)offeredQueues).ConfigureAwait(false);
        uint? order = await NumberAsync(
            store, frontendPath, "ring-page-order", 0, BlkifConstants.MaxRingPageOrder).ConfigureAwait(false);
        bool isPersistent = await NumberAsync(store, frontendPath, "feature-persistent", 0, 1).ConfigureAwait(false)
            == 1;

        FrontendQueue[] found = new FrontendQueue[queues ?? 1];
        for (int i = 0; i < found.Length; i++)
        {
            // A frontend describes a single queue in its own directory, like a frontend without multi-queue.
            string path = found.Length == 1
                ? frontendPath
                : string.Create(CultureInfo.InvariantCulture, $"{frontendPath}/queue-{i}");
            found[i] = await FrontendQueue.ReadAsync(store, path, (int?)order).ConfigureAwait(false);
        }

        return new FrontendParameters(abi, (int)(order ?? 0), isPersistent, found);
    }

    /// <summary>Whether another description of the frontend names the same rings.</summary>
    public bool HasRingsOf(FrontendParameters other) =>
        Abi == other.Abi && RingPageOrder == other.RingPageOrder && Queues.SequenceEqual(other.Queues);

    /// <summary>Returns the number in a frontend's node, or null if there is no node.</summary>
    /// <exception cref="FrontendException">The node is not a number, or the number is out of range.</exception>
    internal static async Task<uint?> NumberAsync(IXenStore store, string directory, string name, uint least, uint most)
    {
        string? text = await store.ReadAsync($"{directory}/{name}").ConfigureAwait(false);
        if (text is null) return null;
        if (!uint.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out uint value))
            throw new FrontendException(
                $"the frontend's {name} is {Quote(text)}, not a number from 0 to {uint.MaxValue}");
        return value >= least && value <= most
            ? value
            : throw new FrontendException($"the frontend's {name} is {value}, not from {least} to {most}");
    }

    /// <summary>Shortens a guest's text for a log line, and replaces terminal control characters.</summary>
    public static string Quote(string text)
    {
        const int MaxShown = 40;
        string shown = text.Length > MaxShown ? text[..MaxShown] + "…" : text;
        return $"'{string.Concat(shown.Select(c => c is >= ' ' and <= '~' or '…' ? c : '?'))}'";
    }
}

/// <summary>One queue, as the frontend describes it.</summary>
/// <param name="EventChannel">Port that the frontend allocated for us.</param>
/// <param name="RingReferences">Grant references of the ring's pages.</param>
public sealed record FrontendQueue(uint EventChannel, IReadOnlyList<uint> RingReferences)
{
    /// <summary>
    /// Reads the nodes of a queue whose ring has 2^order pages. A null order means that the frontend did not write one.
    /// </summary>
    /// <exception cref="FrontendException">A node is missing or invalid.</exception>
    public static async Task<FrontendQueue> ReadAsync(IXenStore store, string path, int? ringPageOrder)
    {
        // Without an order there is one page, and ring-ref0 may be a stale node of an earlier driver.
        uint[] references = new uint[1 << (ringPageOrder ?? 0)];
        if (references.Length == 1)
        {
            references[0] = (ringPageOrder is null ? null : await OptionalAsync("ring-ref0").ConfigureAwait(false))
                ?? await NumberAsync("ring-ref").ConfigureAwait(false);
        }
        else
        {
            for (int i = 0; i < references.Length; i++)
                references[i] = await NumberAsync(string.Create(
                    CultureInfo.InvariantCulture, $"ring-ref{i}")).ConfigureAwait(false);
        }

        return new FrontendQueue(await NumberAsync("event-channel").ConfigureAwait(false), references);

        Task<uint?> OptionalAsync(string name) => FrontendParameters.NumberAsync(store, path, name, 0, uint.MaxValue);

        async Task<uint> NumberAsync(string name) =>
            await OptionalAsync(name).ConfigureAwait(false)
                ?? throw new FrontendException($"the frontend has no node {name}");
    }

    /// <inheritdoc/>
    public bool Equals(FrontendQueue? other) =>
        other is not null && EventChannel == other.EventChannel && RingReferences.SequenceEqual(other.RingReferences);

    /// <inheritdoc/>
    public override int GetHashCode() => HashCode.Combine(EventChannel, RingReferences.Count);
}
