namespace Ublkback.Images.Qcow2.Format;

/// <summary>
/// The arithmetic of an image's clusters: what two numbers in its header make of all others (qcow2 specification,
/// docs/interop/qcow2.txt of QEMU).
/// </summary>
/// <param name="ClusterBits">A cluster, the unit of all allocation, has 2^this bytes.</param>
/// <param name="RefcountOrder">A reference count has 2^this bits.</param>
internal readonly record struct Qcow2Layout(int ClusterBits, int RefcountOrder)
{
    /// <summary>Smallest and largest cluster that is known: 512 bytes to 2 MiB.</summary>
    public const int MinClusterBits = 9, MaxClusterBits = 21;

    /// <summary>Widest reference counts: 64 bits.</summary>
    public const int MaxRefcountOrder = 6;

    /// <summary>Largest table of level 1 that is opened, in bytes, as in QEMU (QCOW_MAX_L1_SIZE).</summary>
    public const int MaxL1Bytes = 32 << 20;

    /// <summary>
    /// Largest table of reference count blocks that is opened, in bytes, as in QEMU (QCOW_MAX_REFTABLE_SIZE).
    /// </summary>
    public const int MaxRefcountTableBytes = 8 << 20;

    /// <summary>Bytes in an entry of any table.</summary>
    public const int EntrySize = 8;

    /// <summary>Bytes in a cluster.</summary>
    public int ClusterSize => 1 << ClusterBits;

    /// <summary>Entries of a table of level 2, which fills a cluster.</summary>
    public int EntriesPerTable => ClusterSize / EntrySize;

    /// <summary>Reference counts in a block, which fills a cluster.</summary>
    public int RefcountsPerBlock => ClusterSize * 8 >> RefcountOrder;

    /// <summary>The largest number that a reference count can hold.</summary>
    public ulong MaxRefcount => RefcountOrder == MaxRefcountOrder ? ulong.MaxValue : (1ul << (1 << RefcountOrder)) - 1;

    /// <summary>The first byte of a cluster.</summary>
    public long OffsetOf(long cluster) => cluster << ClusterBits;

    /// <summary>The cluster that a byte is in.</summary>
    public long ClusterOf(long offset) => offset >> ClusterBits;

    /// <summary>The place of a byte in its cluster.</summary>
    public int WithinCluster(long offset) => (int)(offset & (ClusterSize - 1));

    /// <summary>Clusters that a number of bytes takes.</summary>
    public long ClustersFor(long bytes) => ClusterOf(bytes) + (IsAligned(bytes) ? 0 : 1); // any size: no sum overflows

    /// <summary>Entries of level 1 that a disk of a size needs.</summary>
    public long L1EntriesFor(long virtualSize) => (ClustersFor(virtualSize) + EntriesPerTable - 1) / EntriesPerTable;

    /// <summary>Whether an offset is the start of a cluster.</summary>
    public bool IsAligned(long offset) => WithinCluster(offset) == 0;

    /// <summary>
    /// Whether a table of one cluster can be at an offset of a file: at the start of a cluster that is not the
    /// header's, and begins in the file.
    /// </summary>
    public bool IsTablePlace(long offset, long fileLength) =>
        offset >= ClusterSize && IsAligned(offset) && offset < fileLength;
}
