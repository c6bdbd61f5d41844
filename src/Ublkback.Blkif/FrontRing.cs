using System.Runtime.CompilerServices;

namespace Ublkback.Blkif;

/// <summary>The frontend's end of a ring. One thread at a time.</summary>
public sealed unsafe class FrontRing
{
    private readonly SharedRing _shared;
    private readonly BlkifAbi _abi;
    private uint _requestProducer; // written requests, perhaps not yet pushed
    private uint _pushed;
    private uint _responseConsumer;

    /// <summary>Makes a fresh ring in 2^order pages.</summary>
    public FrontRing(nint address, int ringPageOrder, BlkifAbi abi)
    {
        _abi = abi;
        _shared = new SharedRing(address, BlkifConstants.SlotCount(ringPageOrder), abi);
        Unsafe.InitBlockUnaligned((void*)address, 0, (uint)(BlkifConstants.PageSize << ringPageOrder));
        _shared.RequestEvent = 1;
        _shared.ResponseEvent = 1;
    }

    /// <summary>Slots in the ring.</summary>
    public int SlotCount => _shared.SlotCount;

    /// <summary>Slots that carry neither a request nor an unread response.</summary>
    public int FreeCount => SlotCount - (int)(_requestProducer - _responseConsumer);

    /// <summary>The shared request producer, for tests that lie about it.</summary>
    public ref uint SharedRequestProducer => ref _shared.RequestProducer;

    /// <summary>Writes a request into a free slot; the backend sees it after <see cref="Push"/>.</summary>
    public void Put(in BlkifRequest request)
    {
        if (FreeCount == 0) throw new InvalidOperationException("the ring is full");
        byte* slot = _shared.Slot(_requestProducer);
        slot[BlkifAbi.OperationOffset] = (byte)request.Operation;
        slot[BlkifAbi.SegmentCountOffset] = request.SegmentCount;
        Unsafe.WriteUnaligned(slot + BlkifAbi.HandleOffset, request.Handle);
        Unsafe.WriteUnaligned(slot + _abi.IdOffset, request.Id);
        Unsafe.WriteUnaligned(slot + _abi.SectorOffset, request.Sector);
        if (request.Operation == BlkifOperation.Indirect)
            Unsafe.WriteUnaligned(slot + _abi.DescriptorsOffset, request.DescriptorReference);
        else if (request.Operation == BlkifOperation.Discard)
            Unsafe.WriteUnaligned(slot + _abi.DiscardCountOffset, request.DiscardSectorCount);
        else
            Unsafe.WriteUnaligned(slot + _abi.SegmentsOffset, request.Segments);

        _requestProducer++;
    }

    /// <summary>Shows all written requests to the backend; true when it wants to be notified.</summary>
    public bool Push()
    {
        // The requests are visible before the index that covers them.
        Volatile.Write(ref _shared.RequestProducer, _requestProducer);
        uint previous = _pushed;
        _pushed = _requestProducer;
        // The index is visible before the backend's wish is read, or both ends could go to sleep.
        Thread.MemoryBarrier();
        return SharedRing.Passed(_shared.RequestEvent, previous, _requestProducer);
    }

    /// <summary>Whether a response waits.</summary>
    public bool HasResponses => Volatile.Read(ref _shared.ResponseProducer) != _responseConsumer;

    /// <summary>Takes the next response, if there is one.</summary>
    public bool TryTake(out BlkifResponse response)
    {
        // Slots are read only after the index that covers them.
        if (Volatile.Read(ref _shared.ResponseProducer) == _responseConsumer)
        {
            response = default;
            return false;
        }

        byte* slot = _shared.Slot(_responseConsumer);
        response = new BlkifResponse(
            Unsafe.ReadUnaligned<ulong>(slot),
            (BlkifOperation)slot[BlkifAbi.ResponseOperationOffset],
            (BlkifStatus)Unsafe.ReadUnaligned<short>(slot + BlkifAbi.ResponseStatusOffset));
        _responseConsumer++;
        return true;
    }

    /// <summary>
    /// Asks for a notification at the next response, then looks once more; true when one came meanwhile.
    /// </summary>
    public bool FinalCheck()
    {
        _shared.ResponseEvent = _responseConsumer + 1;
        // The wish is visible before the producer is read, or both ends could go to sleep.
        Thread.MemoryBarrier();
        return HasResponses;
    }
}
