namespace Ublkback.Parallax.Requests;

/// <summary>
/// The outcome of sending one request to the process that holds a VDI. <c>VdiSocket</c> decides what to do next, for
/// all stores.
/// </summary>
/// <param name="Reply">The reply; null if none came.</param>
/// <param name="Loss">
/// Why it is not known whether the request was carried out, for people to read; null if that is known.
/// </param>
internal sealed record VdiDelivery(byte[]? Reply, string? Loss)
{
    /// <summary>The request was not sent: no process holds the VDI, or that process does not answer.</summary>
    public static VdiDelivery NoHolder { get; } = new(null, null);

    /// <summary>The request was not carried out, because its process is closing the VDI.</summary>
    public static VdiDelivery Postponed { get; } = Replied(VdiProtocol.Messages.Postpone());

    /// <summary>A reply came.</summary>
    public static VdiDelivery Replied(byte[] reply) => new(reply, null);

    /// <summary>No reply came, though the request may have been carried out.</summary>
    public static VdiDelivery Lost(string why) => new(null, why);
}
