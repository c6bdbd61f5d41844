namespace Ublkback.Backend.Report;

/// <summary>The reason why a guest's request is refused.</summary>
public enum RequestFault
{
    /// <summary>The request is valid.</summary>
    None,

    /// <summary>The operation is unknown or not offered.</summary>
    UnknownOperation,

    /// <summary>More segments than a request may have.</summary>
    TooManySegments,

    /// <summary>A read, write or discard of nothing.</summary>
    NoSectors,

    /// <summary>A segment ends before it begins, or leaves its page.</summary>
    BadSegment,

    /// <summary>The page of segments cannot be copied.</summary>
    NoDescriptors,

    /// <summary>Sectors past the end of the disk.</summary>
    PastEnd,

    /// <summary>A disk with 4096-byte sectors gets a request for part of one.</summary>
    Unaligned,

    /// <summary>A write or discard on a read-only disk.</summary>
    ReadOnly,
}
