namespace Ublkback.Block;

/// <summary>What happens to a disk between the opening and the disposal of its hooks and image.</summary>
public enum DiskEvent
{
    /// <summary>A guest is connected; requests follow.</summary>
    Connected,

    /// <summary>The administrator has what is held go on (<c>ublkback resume</c>).</summary>
    Resumed,

    /// <summary>
    /// This process takes no further requests, and a successor will go on with the disk; those in hand are still
    /// served.
    /// </summary>
    Paused,

    /// <summary>The guest, or the toolstack, lets go of the disk; requests in hand are still served.</summary>
    Closing,

    /// <summary>No request of the connection is in hand any more. The guest may connect again.</summary>
    Closed,
}
