using Ublkback.Backend.Requests;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;
using Ublkback.Xen;

namespace Ublkback.Backend.Grants;

/// <summary>
/// Carries data between requests' buffers and the guest's pages: by memcpy where a page is mapped for good, otherwise
/// through the hypervisor, many copies in a call. On the ring's worker.
/// </summary>
[DataPath]
internal sealed class GuestMemory(ushort domid, PerWorker<GrantCopyBatch> batches, PersistentGrants? persistent)
{
    private GrantCopyBatch? _batch;

    private GrantCopyBatch Batch => _batch ??= batches.Current;

    /// <summary>Number of the batch that is being gathered.</summary>
    public int BatchNumber { get; private set; }

    /// <summary>Whether a helper is mapping pages of the guest.</summary>
    public bool IsMapping => persistent?.IsMapping ?? false;

    /// <summary>Begins to fetch an indirect request's segments into its page for them.</summary>
    public void FetchSegments(RingRequest request) => Fetch(
        request, new BlkifSegment(request.Wire.DescriptorReference, 0, 0),
        PinnedMemory.AddressNumberOf(request.SegmentPage), request.SegmentCount * BlkifAbi.SegmentSize);

    /// <summary>Begins to fetch the data of a request from the guest.</summary>
    public void FetchData(RingRequest request)
    {
        nint address = PinnedMemory.AddressNumberOf(request.Buffer);
        foreach (BlkifSegment segment in request.Segments)
        {
            int length = segment.SectorCount * BlockRequest.SectorSize;
            Fetch(request, segment, address, length);
            address += length;
        }
    }

    /// <summary>Begins to deliver the data of a request to the guest.</summary>
    public void DeliverData(RingRequest request)
    {
        nint address = PinnedMemory.AddressNumberOf(request.Buffer);
        foreach (BlkifSegment segment in request.Segments)
        {
            int offset = segment.First * BlockRequest.SectorSize;
            int length = segment.SectorCount * BlockRequest.SectorSize;
            if (persistent is not null && persistent.TryFind(segment.Gref, out nint page))
                PinnedMemory.Copy(from: address, to: page + offset, length);
            else
                Batch.Add(request, GrantCopy.ToGrant(address, domid, segment.Gref, offset, length));
            address += length;
        }
    }

    /// <summary>Ends all that was begun; requests whose data could not be carried know it then.</summary>
    public void Complete()
    {
        Batch.Make();
        BatchNumber++;
    }

    private void Fetch(RingRequest request, BlkifSegment segment, nint address, int length)
    {
        int offset = segment.First * BlockRequest.SectorSize;
        if (persistent is not null && persistent.TryFind(segment.Gref, out nint page))
            PinnedMemory.Copy(from: page + offset, to: address, length);
        else
            Batch.Add(request, GrantCopy.FromGrant(domid, segment.Gref, offset, address, length));
    }
}
