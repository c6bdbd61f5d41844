namespace Ublkback.Block;

/// <summary>How an image is to be opened, beside what its target says.</summary>
/// <param name="Owner">Who the image is opened for, as people should read it in messages of others.</param>
/// <param name="DiskId">
/// Below 2^62; a number that no other disk on this host has, and this one has in each life of the daemon. An image is
/// open only when all I/O has ended that an earlier process began for the same disk.
/// </param>
/// <param name="IsReadOnly">Whether the disk is given to the guest without the right to write.</param>
/// <param name="AllowsDiscard">Whether the guest may free sectors, if the image can.</param>
/// <param name="SharingGroup">
/// Names the virtual machine the disk is for. Images of one group do not exclude each other; null excludes all others.
/// </param>
/// <param name="Warn">
/// Takes one sentence about an I/O error, with its cause, before the cause is narrowed to a status. Any thread.
/// </param>
/// <param name="Domid">The guest's domain; null when the disk is not a guest's.</param>
/// <param name="Device">The disk's name in the guest, such as xvda; empty when it is not a guest's.</param>
/// <param name="StateFolder">
/// Where an image keeps what must outlive this process but not this host's boot; null when there is no such place.
/// </param>
public sealed record ImageOpening(
    string Owner, long DiskId, bool IsReadOnly, bool AllowsDiscard, string? SharingGroup, Action<string> Warn,
    int? Domid = null, string Device = "", string? StateFolder = null)
{
    /// <summary>
    /// Whether what was answered must outlive this process; otherwise who opened the image does it all again after a
    /// death.
    /// </summary>
    public bool OutlivesProcess { get; init; } = true;

    /// <summary>
    /// True if an image may be opened into which a copy was begun that has not ended, to go on with it.
    /// </summary>
    public bool OpensUnfinished { get; init; }

    /// <summary>
    /// The paths of the images that lie over this one, the topmost first; none when it is a disk's own.
    /// </summary>
    public IReadOnlyList<string> Overlays { get; init; } = [];
}
