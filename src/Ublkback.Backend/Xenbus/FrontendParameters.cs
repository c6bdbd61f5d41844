using System.Globalization;
using Ublkback.Blkif;
using Ublkback.XenStore;

namespace Ublkback.Backend.Xenbus;

/// <summary>What a frontend did wrong when it described its ring.</summary>
public sealed class FrontendException(string message) : Exception(message);

/// <summary>What a frontend says about its rings, checked. Its nodes are hostile input.</summary>
/// <param name="Abi">Layout of the slots.</param>
/// <param name="RingPageOrder">Each ring has 2^order pages.</param>
/// <param name="IsPersistent">Whether the frontend keeps its pages granted.</param>
/// <param name="Queues">The queues, at least one.</param>
public sealed record FrontendParameters(
    BlkifAbi Abi, int RingPageOrder, bool IsPersistent, IReadOnlyList<FrontendQueue> Queues)
{
    /// <summary>Most queues of a vbd, on a machine with as many cores.</summary>
    public const int MaxQueues = 16;

    /// <summary>Reads the nodes of a frontend that was offered a number of queues.</summary>
    /// <exception cref="FrontendException">A node is missing or makes no sense.</exception>
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
            // A single queue is described at the top, as by frontends that know of no others.
            string path = found.Length == 1
                ? frontendPath
                : string.Create(CultureInfo.InvariantCulture, $"{frontendPath}/queue-{i}");
            found[i] = await FrontendQueue.ReadAsync(store, path, (int?)order).ConfigureAwait(false);
        }

        return new FrontendParameters(abi, (int)(order ?? 0), isPersistent, found);
    }

    /// <summary>A number in a frontend's node; null when there is no node.</summary>
    /// <exception cref="FrontendException">It is no number, or out of its range.</exception>
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

    /// <summary>A guest's text as a log line may show it: short, and nothing that a terminal would obey.</summary>
    public static string Quote(string text)
    {
        const int MaxShown = 40;
        string shown = text.Length > MaxShown ? text[..MaxShown] + "…" : text;
        return $"'{string.Concat(shown.Select(c => c is >= ' ' and <= '~' or '…' ? c : '?'))}'";
    }
}
