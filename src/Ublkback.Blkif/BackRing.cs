using System.Runtime.CompilerServices;

namespace Ublkback.Blkif;

/// <summary>
/// The backend's end of a ring. Each slot is copied out once, so what was checked cannot change; the indices that
/// decide are private, and the shared ones are only told to the guest or read with suspicion. The copies are the
/// journal, in which a successor finds what it must answer. One thread at a time.
/// </summary>
[DataPath]
public sealed unsafe class BackRing
{
    private readonly SharedRing _shared;
    private readonly BlkifAbi _abi;
    private readonly RingJournal _journal;
    private uint _requestConsumer;
    private ulong _written; // responses, perhaps not yet published
    private ulong _published;

    private BackRing(nint address, int ringPageOrder, BlkifAbi abi, RingJournal journal)
    {
        _abi = abi;
        _shared = new SharedRing(address, BlkifConstants.SlotCount(ringPageOrder), abi);
        _journal = journal;
    }

    /// <summary>Attaches to a fresh ring of 2^order mapped pages and makes the journal speak of it.</summary>
    public static BackRing Create(nint address, int ringPageOrder, BlkifAbi abi, RingJournal journal)
    {
        journal.Clear();
        return new BackRing(address, ringPageOrder, abi, journal); // off the path: the start
    }

    /// <summary>
    /// Attaches to a ring that another process served until it died: finishes what that was about to publish, and
    /// publishes answers that it did not come to. What it left without an answer is in <see cref="FindPending"/>. Null:
    /// the ring's response index is none that the journal knows, so the guest has written it.
    /// </summary>
    // off the path: the start
    public static BackRing? Recover(nint address, int ringPageOrder, BlkifAbi abi, RingJournal journal)
    {
        BackRing ring = new(address, ringPageOrder, abi, journal);
        uint shown = Volatile.Read(ref ring._shared.ResponseProducer);
        if (shown == (uint)journal.Intended) journal.Published = journal.Intended;
        else if (shown != (uint)journal.Published) return null;
        KillPoint.Reach(nameof(Recover));

        ring._written = ring._published = journal.Published;
        ring._requestConsumer = (uint)journal.Published;
        for (int entry = 0; entry < ring.SlotCount; entry++)
        {
            if (journal.IsPending(entry) || journal.IsAnswered(entry)) ring._requestConsumer++;
        }

        for (int entry = 0; entry < ring.SlotCount; entry++)
        {
            if (!journal.IsAnswered(entry)) continue;
            ring.Parse(entry, out BlkifRequest request);
            ring.Put(entry, new BlkifResponse(request.Id, request.InnerOperation, journal.Status(entry)));
        }

        ring.Publish();
        return ring;
    }

    /// <summary>Slots in the ring, and so the most requests in flight.</summary>
    public int SlotCount => _shared.SlotCount;

    /// <summary>The entries of requests that were taken and not answered, in the order of the ring.</summary>
    public IReadOnlyList<int> FindPending() // off the path: the start
    {
        List<int> pending = [];
        for (int entry = 0; entry < SlotCount; entry++)
        {
            if (_journal.IsPending(entry)) pending.Add(entry);
        }

        pending.Sort((one, other) => (int)(_journal.RequestIndex(one) - _journal.RequestIndex(other)));
        return pending;
    }

    /// <summary>
    /// How many requests wait. Negative: the guest claims more than its ring can hold, so the ring must not be served
    /// any more (RING_REQUEST_PROD_OVERFLOW).
    /// </summary>
    public int CountWaiting()
    {
        // Slots are read only after the index that covers them.
        uint producer = Volatile.Read(ref _shared.RequestProducer);
        return producer - (uint)_written > (uint)SlotCount ? -1 : (int)(producer - _requestConsumer);
    }

    /// <summary>
    /// Copies the next waiting request into a free entry of the journal. <see cref="CountWaiting"/> must have said that
    /// there is one.
    /// </summary>
    public void Take(int entry, out BlkifRequest request)
    {
        Unsafe.CopyBlockUnaligned(_journal.Slot(entry), _shared.Slot(_requestConsumer), (uint)_abi.RequestSize);
        _journal.Take(entry, _requestConsumer);
        _requestConsumer++;
        Parse(entry, out request);
    }

    /// <summary>Takes again what a process before us took.</summary>
    public void Retake(int entry, out BlkifRequest request)
    {
        _journal.Attempts(entry)++;
        KillPoint.Reach(nameof(Retake));
        Parse(entry, out request);
    }

    /// <summary>How many processes have had the request of an entry in hand, this one included.</summary>
    public int Attempts(int entry) => _journal.Attempts(entry);

    /// <summary>
    /// Does not hold it against the request of an entry, if it is in hand, that this process ends now.
    /// </summary>
    public void Forgive(int entry) => _journal.Attempts(entry) = 1;

    /// <summary>
    /// Answers the request of an entry: writes the response into the next slot, where the guest sees it after
    /// <see cref="Publish"/>. Until then the entry must not be used again.
    /// </summary>
    public void Put(int entry, in BlkifResponse response)
    {
        _journal.Answer(entry, _written + 1, response.Status);
        // The whole response is written, so nothing of ours leaks through its padding.
        byte* slot = _shared.Slot((uint)_written);
        Unsafe.InitBlockUnaligned(slot, 0, (uint)_abi.ResponseSize);
        Unsafe.WriteUnaligned(slot, response.Id);
        slot[BlkifAbi.ResponseOperationOffset] = (byte)response.Operation;
        Unsafe.WriteUnaligned(slot + BlkifAbi.ResponseStatusOffset, (short)response.Status);
        _written++;
        KillPoint.Reach(nameof(Put));
    }

    /// <summary>Shows all written responses to the guest; true when it wants to be notified.</summary>
    public bool Publish()
    {
        uint previous = (uint)_published;
        _journal.Intended = _written;
        KillPoint.Reach("Intended");
        // The responses are visible before the index that covers them.
        Volatile.Write(ref _shared.ResponseProducer, (uint)_written);
        KillPoint.Reach("Shown");
        _journal.Published = _written;
        KillPoint.Reach("Published");
        _published = _written;
        // The index is visible before the guest's wish is read, or both ends could go to sleep.
        Thread.MemoryBarrier();
        return SharedRing.Passed(_shared.ResponseEvent, previous, (uint)_written);
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

    private void Parse(int entry, out BlkifRequest request)
    {
        byte* copy = _journal.Slot(entry);
        request.Operation = (BlkifOperation)copy[BlkifAbi.OperationOffset];
        request.SegmentCount = copy[BlkifAbi.SegmentCountOffset];
        request.Handle = Unsafe.ReadUnaligned<ushort>(copy + BlkifAbi.HandleOffset);
        request.Id = Unsafe.ReadUnaligned<ulong>(copy + _abi.IdOffset);
        request.Sector = Unsafe.ReadUnaligned<ulong>(copy + _abi.SectorOffset);
        request.Segments = Unsafe.ReadUnaligned<BlkifSegments>(copy + _abi.SegmentsOffset);
        request.DescriptorReference = Unsafe.ReadUnaligned<uint>(copy + _abi.DescriptorsOffset);
        request.DiscardSectorCount = Unsafe.ReadUnaligned<ulong>(copy + _abi.DiscardCountOffset);
    }
}
