namespace Ublkback.Images.Qcow2.Format;

/// <summary>What an entry of level 2 says of a guest's cluster.</summary>
internal enum ClusterKind : byte
{
    /// <summary>The image does not have it: it is as in the backing file, or zeros.</summary>
    Unallocated,

    /// <summary>It reads as zeros.</summary>
    Zero,

    /// <summary>It is at a place in the image.</summary>
    Data,

    /// <summary>It is at a place in the image, compressed.</summary>
    Compressed,

    /// <summary>The entry makes no sense.</summary>
    Invalid,
}

/// <summary>An entry of a table of level 2 (qcow2 specification, "Cluster mapping").</summary>
internal readonly record struct L2Entry(ulong Value)
{
    /// <summary>The cluster has one reference, so that it may be written in place (OFLAG_COPIED).</summary>
    public const ulong CopiedFlag = 1ul << 63;

    /// <summary>The cluster is zeros, whatever is at its place; version 3 only.</summary>
    public const ulong ZeroFlag = 1;

    /// <summary>The bits of a cluster's place, in entries of level 2 and level 1.</summary>
    public const ulong OffsetMask = 0x00FF_FFFF_FFFF_FE00;

    private const ulong CompressedFlag = 1ul << 62;
    private const int SectorSize = 512;

    /// <summary>The entry of a cluster that is referenced once.</summary>
    public static L2Entry ForData(long hostOffset) => new((ulong)hostOffset | CopiedFlag);

    /// <summary>Whether the cluster may be written in place.</summary>
    public bool IsCopied => (Value & CopiedFlag) != 0;

    /// <summary>The place of a cluster that is not compressed; 0 when it has none.</summary>
    public long HostOffset => (long)(Value & OffsetMask);

    /// <summary>What the entry says, in an image of a layout and version.</summary>
    public ClusterKind KindIn(Qcow2Layout layout, int version)
    {
        if (Value == 0) return ClusterKind.Unallocated;
        if ((Value & CompressedFlag) != 0) return IsCopied ? ClusterKind.Invalid : ClusterKind.Compressed;
        ulong reserved = ~(CopiedFlag | OffsetMask | (version >= 3 ? ZeroFlag : 0));
        if ((Value & reserved) != 0 || !layout.IsAligned(HostOffset)) return ClusterKind.Invalid;
        if ((Value & ZeroFlag) != 0) return ClusterKind.Zero;
        return HostOffset == 0 ? ClusterKind.Unallocated : ClusterKind.Data;
    }

    /// <summary>
    /// True if the entry is invalid only because its place is not at a cluster's start. The cluster reads as zeros, so
    /// a repair loses no data when it drops the place.
    /// </summary>
    public bool IsZerosAtNoCluster(Qcow2Layout layout, int version) => version >= 3
        && (Value & ~(CopiedFlag | OffsetMask)) == ZeroFlag && !layout.IsAligned(HostOffset);

    /// <summary>The first byte of a compressed cluster's data, and how many bytes it has at most.</summary>
    public (long Offset, int Length) CompressedRangeIn(Qcow2Layout layout)
    {
        int offsetBits = 62 - (layout.ClusterBits - 8);
        long offset = (long)(Value & ((1ul << offsetBits) - 1));
        long sectors = (long)((Value & ~(CopiedFlag | CompressedFlag)) >> offsetBits) + 1;
        return (offset, (int)((sectors * SectorSize) - (offset & (SectorSize - 1))));
    }
}
