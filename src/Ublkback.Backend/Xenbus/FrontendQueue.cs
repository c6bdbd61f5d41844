using System.Globalization;
using Ublkback.XenStore;

namespace Ublkback.Backend.Xenbus;

/// <summary>One queue, as a frontend describes it.</summary>
/// <param name="EventChannel">Port that the frontend allocated for us.</param>
/// <param name="RingReferences">Grant references of the ring's pages.</param>
public sealed record FrontendQueue(uint EventChannel, IReadOnlyList<uint> RingReferences)
{
    /// <summary>Reads the nodes of a queue whose ring has 2^order pages; null: the frontend names no order.</summary>
    /// <exception cref="FrontendException">A node is missing or makes no sense.</exception>
    public static async Task<FrontendQueue> ReadAsync(IXenStore store, string path, int? ringPageOrder)
    {
        // Without an order there is one page, and a stale ring-ref0 of an earlier driver must not be taken.
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
