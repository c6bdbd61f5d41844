namespace Ublkback.Control;

/// <summary>The version of the control socket's protocol, which docs/CONTROL.md describes.</summary>
internal static class ControlProtocol
{
    /// <summary>
    /// The version that this program speaks. It changes when an old request would be misunderstood, not when a command
    /// or a field of a reply is added.
    /// </summary>
    public const int Version = 1;

    /// <summary>Tells the user how a daemon and a program of different versions come together again.</summary>
    public const string Remedy =
        "restart the daemon with the installed version, with 'systemctl restart ublkback' (guests only pause)";
}
