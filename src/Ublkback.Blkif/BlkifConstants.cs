namespace Ublkback.Blkif;

/// <summary>Numbers of the block interface (xen/io/blkif.h).</summary>
public static class BlkifConstants
{
    /// <summary>Bytes in a page of a ring.</summary>
    public const int PageSize = 4096;

    /// <summary>Sectors of 512 bytes in a page.</summary>
    public const int SectorsPerPage = 8;

    /// <summary>Most segments in a request's slot (BLKIF_MAX_SEGMENTS_PER_REQUEST).</summary>
    public const int MaxDirectSegments = 11;

    /// <summary>
    /// Most segments in an indirect request, as we offer it. A page holds 512 of them, so one page of segments is
    /// enough.
    /// </summary>
    public const int MaxIndirectSegments = 256;

    /// <summary>Largest ring order that is served: 16 pages.</summary>
    public const int MaxRingPageOrder = 4;

    /// <summary>Bytes before the first slot: the shared indices (xen/io/ring.h).</summary>
    public const int RingHeaderSize = 64;

    /// <summary>Slots in a ring of 2^order pages.</summary>
    public static int SlotCount(int ringPageOrder) => 32 << ringPageOrder;
}

/// <summary>Operations of a slot (BLKIF_OP_*). A guest may write any other byte.</summary>
public enum BlkifOperation : byte
{
    /// <summary>Read sectors into the segments.</summary>
    Read = 0,

    /// <summary>Write sectors from the segments.</summary>
    Write = 1,

    /// <summary>Write, ordered against all others of the ring.</summary>
    WriteBarrier = 2,

    /// <summary>Make completed writes durable.</summary>
    FlushDiskCache = 3,

    /// <summary>Free sectors.</summary>
    Discard = 5,

    /// <summary>A request whose segments are in pages of their own.</summary>
    Indirect = 6,
}

/// <summary>Status of a response (BLKIF_RSP_*).</summary>
public enum BlkifStatus : short
{
    /// <summary>Done.</summary>
    Okay = 0,

    /// <summary>Failed.</summary>
    Error = -1,

    /// <summary>The backend does not know the operation.</summary>
    NotSupported = -2,
}
