namespace Ublkback.Parallax.Admin;

/// <summary>A VDI as commands show it.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Number">Its number in the store, by which its file is called.</param>
/// <param name="SizeBytes">Size of the disk.</param>
/// <param name="AllocatedBytes">What its file takes in the file system, with what clones need of it.</param>
/// <param name="Origin">The snapshot that it was cloned from, as that was called then; empty when from none.</param>
/// <param name="Created">When it was made.</param>
/// <param name="Holder">Who has it open for writing; null when nobody has.</param>
/// <param name="Snapshots">Its snapshots, in the order in which they were made.</param>
/// <param name="IsUnfinished">True if its import has not ended, so that it cannot be used.</param>
public sealed record VdiInfo(
    string Name, uint Number, long SizeBytes, long AllocatedBytes, string Origin, DateTimeOffset Created,
    string? Holder,
    IReadOnlyList<VdiSnapshotInfo> Snapshots, bool IsUnfinished);

/// <summary>A snapshot as commands show it.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Created">When it was made.</param>
public sealed record VdiSnapshotInfo(string Name, DateTimeOffset Created);

/// <summary>What a check of VDIs found.</summary>
/// <param name="Nodes">Nodes of maps that were read.</param>
/// <param name="DataBlocks">Blocks of data that are needed.</param>
/// <param name="Damages">How many damages were found.</param>
/// <param name="Damaged">In which VDIs.</param>
public sealed record VdiCheck(long Nodes, long DataBlocks, long Damages, IReadOnlyList<string> Damaged);

/// <summary>A range of a disk.</summary>
/// <param name="Offset">First byte.</param>
/// <param name="Length">Bytes.</param>
public sealed record VdiRange(long Offset, long Length);
