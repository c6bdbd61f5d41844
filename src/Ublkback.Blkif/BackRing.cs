using System.Runtime.CompilerServices;

namespace Ublkback.Blkif;

/// <summary>
/// The backend's end of a ring. Each slot is copied out once, so what was checked cannot change; the indices that
/// decide are private, and the shared ones are only told to the guest or read with suspicion. One thread at a time.
/// </summary>
public sealed unsafe class BackRing
{
    private readonly SharedRing _shared;
    private readonly BlkifAbi _abi;
    private uint _requestConsumer;
    private uint _responseProducer; // written responses, perhaps not yet published
    private uint _published;

    /// <summary>Attaches to a ring of 2^order mapped pages, at the state of a fresh ring.</summary>
    public BackRing(nint address, int ringPageOrder, BlkifAbi abi)
        : this(address, ringPageOrder, abi, responseProducer: 0)
    {
    }

    /// <summary>
    /// Attaches to a ring that another process served, all of whose consumed requests were answered and published;
    /// <paramref name="responseProducer"/> is the number of those responses.
    /// </summary>
    public BackRing(nint address, int ringPageOrder, BlkifAbi abi, uint responseProducer)
    {
        _abi = abi;
        _shared = new SharedRing(address, BlkifConstants.SlotCount(ringPageOrder), abi);
        _requestConsumer = responseProducer;
        _responseProducer = responseProducer;
        _published = responseProducer;
    }

    /// <summary>Slots in the ring, and so the most requests in flight.</summary>
    public int SlotCount => _shared.SlotCount;

    /// <summary>Responses written since the ring was made, modulo 2^32.</summary>
    public uint ResponseProducer => _responseProducer;

    /// <summary>What <c>rsp_prod</c> is in the shared page; the guest can write it.</summary>
    public uint SharedResponseProducer => Volatile.Read(ref _shared.ResponseProducer);

    /// <summary>
    /// How many requests wait. Negative: the guest claims more than its ring can hold, so the ring must not be served
    /// any more (RING_REQUEST_PROD_OVERFLOW).
    /// </summary>
    public int CountWaiting()
    {
        // Slots are read only after the index that covers them.
        uint producer = Volatile.Read(ref _shared.RequestProducer);
        return producer - _responseProducer > (uint)SlotCount ? -1 : (int)(producer - _requestConsumer);
    }

    /// <summary>Copies the next waiting request. <see cref="CountWaiting"/> must have said that there is one.</summary>
    public void Take(out BlkifRequest request)
    {
        byte* copy = stackalloc byte[128];
        Unsafe.CopyBlockUnaligned(copy, _shared.Slot(_requestConsumer), (uint)_abi.RequestSize);
        _requestConsumer++;

        request.Operation = (BlkifOperation)copy[BlkifAbi.OperationOffset];
        request.SegmentCount = copy[BlkifAbi.SegmentCountOffset];
        request.Handle = Unsafe.ReadUnaligned<ushort>(copy + BlkifAbi.HandleOffset);
        request.Id = Unsafe.ReadUnaligned<ulong>(copy + _abi.IdOffset);
        request.Sector = Unsafe.ReadUnaligned<ulong>(copy + _abi.SectorOffset);
        request.Segments = Unsafe.ReadUnaligned<BlkifSegments>(copy + _abi.SegmentsOffset);
        request.DescriptorReference = Unsafe.ReadUnaligned<uint>(copy + _abi.DescriptorsOffset);
        request.DiscardSectorCount = Unsafe.ReadUnaligned<ulong>(copy + _abi.DiscardCountOffset);
    }

    /// <summary>Writes a response into the next slot; the guest sees it after <see cref="Publish"/>.</summary>
    public void Put(in BlkifResponse response)
    {
        // The whole response is written, so nothing of ours leaks through its padding.
        byte* slot = _shared.Slot(_responseProducer);
        Unsafe.InitBlockUnaligned(slot, 0, (uint)_abi.ResponseSize);
        Unsafe.WriteUnaligned(slot, response.Id);
        slot[BlkifAbi.ResponseOperationOffset] = (byte)response.Operation;
        Unsafe.WriteUnaligned(slot + BlkifAbi.ResponseStatusOffset, (short)response.Status);
        _responseProducer++;
    }

    /// <summary>Shows all written responses to the guest; true when it wants to be notified.</summary>
    public bool Publish()
    {
        uint previous = _published;
        // The responses are visible before the index that covers them.
        Volatile.Write(ref _shared.ResponseProducer, _responseProducer);
        _published = _responseProducer;
        // The index is visible before the guest's wish is read, or both ends could go to sleep.
        Thread.MemoryBarrier();
        return SharedRing.Passed(_shared.ResponseEvent, previous, _responseProducer);
    }

    /// <summary>
    /// Asks the guest for a notification at its next request, then looks once more; true when a request came meanwhile.
    /// </summary>
    public bool FinalCheck()
    {
        _shared.RequestEvent = _requestConsumer + 1;
        // The wish is visible before the producer is read, or both ends could go to sleep.
        Thread.MemoryBarrier();
        return CountWaiting() != 0;
    }
}
