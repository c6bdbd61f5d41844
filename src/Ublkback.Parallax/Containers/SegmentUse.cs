namespace Ublkback.Parallax.Containers;

/// <summary>What a segment is taken for. When the storage is full, each leaves what those behind it need.</summary>
internal enum SegmentUse
{
    /// <summary>The guest's data.</summary>
    Data,

    /// <summary>Discards, which make room, and changes of the disk as a whole.</summary>
    Discards,

    /// <summary>
    /// Blocks that are moved so that their segments can be freed. Like what follows, it never waits for a collection,
    /// of which it is a part.
    /// </summary>
    Moves,

    /// <summary>The deletion of snapshots, and another place for the log.</summary>
    Upkeep,

    /// <summary>The map's nodes, without which nothing can be given back.</summary>
    Nodes,
}
