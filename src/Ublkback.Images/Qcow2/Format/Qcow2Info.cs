namespace Ublkback.Images.Qcow2.Format;

/// <summary>What an image says of itself.</summary>
/// <param name="Version">2 or 3.</param>
/// <param name="VirtualSize">Bytes of the disk.</param>
/// <param name="FileSize">Bytes of the file.</param>
/// <param name="ClusterSize">Bytes of a cluster.</param>
/// <param name="RefcountBits">Bits of a reference count.</param>
/// <param name="BackingFile">The name of the backing file; null when there is none.</param>
/// <param name="BackingFormat">Its format; null when the image does not say.</param>
/// <param name="Snapshots">Internal snapshots.</param>
/// <param name="IsDirty">Whether it is in use, or was not closed by who wrote it last.</param>
/// <param name="IsCorrupt">Whether it was found to be broken.</param>
internal sealed record Qcow2Info(
    int Version, long VirtualSize, long FileSize, int ClusterSize, int RefcountBits, string? BackingFile,
    string? BackingFormat,
    int Snapshots, bool IsDirty, bool IsCorrupt);
