using Ublkback.Linux.Messages;

namespace Ublkback.Parallax.Requests;

/// <summary>The protocol of the VDI socket, which docs/VDI-SOCKET.md describes.</summary>
internal static class VdiProtocol
{
    /// <summary>
    /// The version that this program speaks. It changes when an old request would be misunderstood, not when a command
    /// or a field of a reply is added.
    /// </summary>
    public const int Version = 1;

    private const int MaxRequestLength = 64 << 10; // in bytes
    private const int MaxReplyLength = 16 << 20; // in bytes; the 16384 snapshots that a VDI can have take 6 MiB

    /// <summary>What all messages have in common.</summary>
    public static MessageProtocol Messages { get; } = new(
        "the VDI protocol", Version, "the process that holds the VDI",
        "restart that process with the installed version; the daemon with 'systemctl restart ublkback' (guests only "
        + "pause)",
        "docs/VDI-SOCKET.md", MaxRequestLength, MaxReplyLength);
}
