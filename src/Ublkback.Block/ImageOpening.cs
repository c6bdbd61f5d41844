namespace Ublkback.Block;

/// <summary>How an image is to be opened, beside what its target says.</summary>
/// <param name="Owner">Who the image is opened for, as people should read it in messages of others.</param>
/// <param name="IsReadOnly">Whether the disk is given to the guest without the right to write.</param>
/// <param name="AllowsDiscard">Whether the guest may free sectors, if the image can.</param>
/// <param name="SharingGroup">
/// Names the virtual machine the disk is for. Images of one group do not exclude each other; null excludes all others.
/// </param>
/// <param name="Warn">
/// Takes one sentence about an I/O error, with its cause, before the cause is narrowed to a status. Any thread.
/// </param>
public sealed record ImageOpening(
    string Owner, bool IsReadOnly, bool AllowsDiscard, string? SharingGroup, Action<string> Warn);
