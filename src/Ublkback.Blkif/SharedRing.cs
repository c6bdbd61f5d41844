using System.Runtime.CompilerServices;

namespace Ublkback.Blkif;

/// <summary>
/// The memory that both ends of a ring see (struct blkif_sring of ring.h): four indices, then slots that carry a
/// request and later a response. The other end may write anything anywhere at any time.
/// </summary>
[DataPath]
internal readonly unsafe struct SharedRing(nint address, int slotCount, BlkifAbi abi)
{
    private readonly byte* _base = (byte*)address;

    public int SlotCount => slotCount;

    /// <summary>Requests written so far; stored by the frontend.</summary>
    public ref uint RequestProducer => ref *(uint*)_base;

    /// <summary>The frontend notifies when its producer passes this; stored by the backend.</summary>
    public ref uint RequestEvent => ref *(uint*)(_base + 4);

    /// <summary>Responses written so far; stored by the backend.</summary>
    public ref uint ResponseProducer => ref *(uint*)(_base + 8);

    /// <summary>The backend notifies when its producer passes this; stored by the frontend.</summary>
    public ref uint ResponseEvent => ref *(uint*)(_base + 12);

    /// <summary>The slot of an index.</summary>
    public byte* Slot(uint index) =>
        _base + BlkifConstants.RingHeaderSize + ((index & (uint)(slotCount - 1)) * (uint)abi.RequestSize);

    /// <summary>
    /// Whether a producer that moved from <paramref name="previous"/> to <paramref name="current"/> passed the index at
    /// which the other end wants an event (RING_PUSH_…_AND_CHECK_NOTIFY).
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Passed(uint wanted, uint previous, uint current) => current - wanted < current - previous;
}
