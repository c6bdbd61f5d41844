namespace Ublkback.Nbd.Protocol;

/// <summary>Numbers of the NBD protocol (NetworkBlockDevice/nbd, doc/proto.md), all big-endian on the wire.</summary>
internal static class NbdProtocol
{
    /// <summary>What a server says first: NBDMAGIC.</summary>
    public const ulong InitialMagic = 0x4e42444d41474943;

    /// <summary>What it says next, and a client before each option: IHAVEOPT.</summary>
    public const ulong OptionMagic = 0x49484156454F5054;

    /// <summary>Before each reply to an option.</summary>
    public const ulong OptionReplyMagic = 0x3e889045565a9;

    /// <summary>Before each request.</summary>
    public const uint RequestMagic = 0x25609513;

    /// <summary>Before a simple reply.</summary>
    public const uint SimpleReplyMagic = 0x67446698;

    /// <summary>Before a chunk of a structured reply.</summary>
    public const uint ChunkMagic = 0x668e33ef;

    /// <summary>Handshake flag of both: fixed newstyle negotiation.</summary>
    public const ushort FixedNewStyle = 1;

    /// <summary>Handshake flag of both: no padding after NBD_OPT_EXPORT_NAME.</summary>
    public const ushort NoZeroes = 2;

    /// <summary>Information on GO: size and flags of the export.</summary>
    public const ushort InfoExport = 0;

    /// <summary>Information on GO: sizes of requests.</summary>
    public const ushort InfoBlockSize = 3;

    /// <summary>Flag of a request: durable before it is answered.</summary>
    public const ushort ForceUnitAccess = 1;

    /// <summary>Flag of a request for zeros: they are to take space.</summary>
    public const ushort NoHole = 2;

    /// <summary>Flag of a request to read: the answer is one chunk.</summary>
    public const ushort DontFragment = 4;

    /// <summary>Flag of a request for the status of blocks: of the first only.</summary>
    public const ushort RequestOne = 8;

    /// <summary>Zeros after the answer to NBD_OPT_EXPORT_NAME, unless both ends do without.</summary>
    public const int Padding = 124;

    /// <summary>Flag of a chunk: the last one.</summary>
    public const ushort Done = 1;

    /// <summary>Type of a chunk: nothing in it.</summary>
    public const ushort ChunkNone = 0;

    /// <summary>Type of a chunk: an offset and data.</summary>
    public const ushort ChunkData = 1;

    /// <summary>Type of a chunk: an offset and how many zeros.</summary>
    public const ushort ChunkHole = 2;

    /// <summary>Type of a chunk: how blocks are kept.</summary>
    public const ushort ChunkBlockStatus = 5;

    /// <summary>Type of a chunk: an error; types with this bit are errors of some kind.</summary>
    public const ushort ChunkError = 0x8001;

    /// <summary>The bit that types of errors have.</summary>
    public const ushort ChunkErrorBit = 0x8000;

    /// <summary>The context of block status that tells of holes and zeros.</summary>
    public const string AllocationContext = "base:allocation";

    /// <summary>Bytes of a request without its data.</summary>
    public const int RequestSize = 28;

    /// <summary>Bytes of a simple reply without its data.</summary>
    public const int SimpleReplySize = 16;

    /// <summary>Bytes of a chunk's head.</summary>
    public const int ChunkHeadSize = 20;

    /// <summary>Longest name of an export, in bytes.</summary>
    public const int MaxName = 4096;

    /// <summary>Most bytes of one request when nobody has said otherwise.</summary>
    public const int DefaultMaxBlock = 32 << 20;
}
