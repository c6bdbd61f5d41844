namespace Ublkback.Blkif;

/// <summary>
/// Where the fields of a slot are, for one kind of guest. Chosen once, when a ring is connected. Offsets and sizes in
/// bytes, as a compiler for that kind of guest lays out blkif.h; a test compares them with the header.
/// </summary>
public sealed record BlkifAbi
{
    private BlkifAbi()
    {
    }

    /// <summary>64-bit guests.</summary>
    public static BlkifAbi X86_64 { get; } = new()
    {
        Protocol = "x86_64-abi",
        RequestSize = 112,
        ResponseSize = 16,
        IdOffset = 8,
        SectorOffset = 16,
        SegmentsOffset = 24,
        DiscardCountOffset = 24,
        DescriptorsOffset = 28,
    };

    /// <summary>32-bit guests.</summary>
    public static BlkifAbi X86_32 { get; } = new()
    {
        Protocol = "x86_32-abi",
        RequestSize = 108,
        ResponseSize = 12,
        IdOffset = 4,
        SectorOffset = 12,
        SegmentsOffset = 20,
        DiscardCountOffset = 20,
        DescriptorsOffset = 24,
    };

    /// <summary>Offset of the operation in a request.</summary>
    public const int OperationOffset = 0;

    /// <summary>
    /// Offset of the byte after the operation: number of segments, flag of a discard, or operation of an indirect
    /// request.
    /// </summary>
    public const int SegmentCountOffset = 1;

    /// <summary>Offset of the device handle in a request; in an indirect one, of its number of segments.</summary>
    public const int HandleOffset = 2;

    /// <summary>Size of a segment: grant reference, first and last sector.</summary>
    public const int SegmentSize = 8;

    /// <summary>Offset of the operation in a response.</summary>
    public const int ResponseOperationOffset = 8;

    /// <summary>Offset of the status in a response.</summary>
    public const int ResponseStatusOffset = 10;

    /// <summary>The word in the frontend's <c>protocol</c> node.</summary>
    public required string Protocol { get; init; }

    /// <summary>Size of a request, which is also the distance between slots.</summary>
    public required int RequestSize { get; init; }

    /// <summary>Size of a response. It sits at the start of its slot.</summary>
    public required int ResponseSize { get; init; }

    /// <summary>Offset of the 64-bit id in a request.</summary>
    public required int IdOffset { get; init; }

    /// <summary>Offset of the 64-bit sector number in a request.</summary>
    public required int SectorOffset { get; init; }

    /// <summary>Offset of the first segment in a request.</summary>
    public required int SegmentsOffset { get; init; }

    /// <summary>Offset of the 64-bit number of sectors in a discard.</summary>
    public required int DiscardCountOffset { get; init; }

    /// <summary>Offset of the first grant reference of a page of segments in an indirect request.</summary>
    public required int DescriptorsOffset { get; init; }

    /// <summary>The layout that a <c>protocol</c> node names; absent means 32-bit. Null: unknown.</summary>
    public static BlkifAbi? FromProtocol(string? protocol) => protocol switch
    {
        null => X86_32,
        "x86_32-abi" => X86_32,
        "x86_64-abi" => X86_64,
        _ => null,
    };
}
