using System.Globalization;
using Ublkback.Blkif;
using Ublkback.XenStore;

namespace Ublkback.Backend;

/// <summary>What a frontend did wrong when it described its ring.</summary>
public sealed class FrontendException(string message) : Exception(message);

/// <summary>What a frontend says about its ring, checked. Its nodes are hostile input.</summary>
/// <param name="Abi">Layout of its slots.</param>
/// <param name="RingPageOrder">The ring has 2^order pages.</param>
/// <param name="RingReferences">Grant references of the ring's pages.</param>
/// <param name="EventChannel">Port that the frontend allocated for us.</param>
public sealed record FrontendParameters(
    BlkifAbi Abi, int RingPageOrder, IReadOnlyList<uint> RingReferences, uint EventChannel)
{
    /// <summary>Reads the nodes of a frontend.</summary>
    /// <exception cref="FrontendException">A node is missing or makes no sense.</exception>
    public static async Task<FrontendParameters> ReadAsync(IXenStore store, string frontendPath)
    {
        string? protocol = await Read("protocol").ConfigureAwait(false);
        BlkifAbi abi = BlkifAbi.FromProtocol(protocol)
            ?? throw new FrontendException($"the frontend's protocol {Quote(protocol!)} is unknown");
        uint queues = await ReadOptional("multi-queue-num-queues", 1, 1).ConfigureAwait(false) ?? 1;
        if (queues != 1) throw new FrontendException($"the frontend wants {queues} queues; 1 was offered");

        // Without an order there is one page, and a stale ring-ref0 of an earlier driver must not be taken.
        uint? order = await ReadOptional("ring-page-order", 0, BlkifConstants.MaxRingPageOrder).ConfigureAwait(false);
        uint[] references = new uint[1 << (int)(order ?? 0)];
        if (order is null or 0)
        {
            references[0] = (order is null ? null : await ReadOptional("ring-ref0", 0, uint.MaxValue).ConfigureAwait(false))
                ?? await ReadNumber("ring-ref").ConfigureAwait(false);
        }
        else
        {
            for (int i = 0; i < references.Length; i++)
                references[i] = await ReadNumber(string.Create(CultureInfo.InvariantCulture, $"ring-ref{i}")).ConfigureAwait(false);
        }

        return new FrontendParameters(
            abi, (int)(order ?? 0), references, await ReadNumber("event-channel").ConfigureAwait(false));

        Task<string?> Read(string name) => store.ReadAsync($"{frontendPath}/{name}");

        async Task<uint> ReadNumber(string name) =>
            await ReadOptional(name, 0, uint.MaxValue).ConfigureAwait(false)
            ?? throw new FrontendException($"the frontend has no node {name}");

        async Task<uint?> ReadOptional(string name, uint least, uint most)
        {
            string? text = await Read(name).ConfigureAwait(false);
            if (text is null) return null;
            if (!uint.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out uint value))
                throw new FrontendException($"the frontend's {name} is {Quote(text)}, not a number from 0 to {uint.MaxValue}");
            return value >= least && value <= most
                ? value
                : throw new FrontendException($"the frontend's {name} is {value}, not from {least} to {most}");
        }
    }

    /// <summary>A guest's text as a log line may show it: short, and nothing that a terminal would obey.</summary>
    public static string Quote(string text)
    {
        const int MaxShown = 40;
        string shown = text.Length > MaxShown ? text[..MaxShown] + "…" : text;
        return $"'{string.Concat(shown.Select(c => c is >= ' ' and <= '~' or '…' ? c : '?'))}'";
    }
}
