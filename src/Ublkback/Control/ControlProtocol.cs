using Ublkback.Linux.Messages;

namespace Ublkback.Control;

/// <summary>The control socket's protocol, which docs/CONTROL.md describes.</summary>
internal static class ControlProtocol
{
    /// <summary>
    /// The version that this program speaks. It changes when an old request would be misunderstood, not when a command
    /// or a field of a reply is added.
    /// </summary>
    public const int Version = 1;

    private const int MaxLength = 16 << 20; // of a message, in bytes

    /// <summary>What all messages have in common.</summary>
    public static MessageProtocol Messages { get; } = new(
        "the control protocol", Version, "the daemon",
        "restart the daemon with the installed version, with 'systemctl restart ublkback' (guests only pause)",
        "docs/CONTROL.md", MaxLength, MaxLength);
}
