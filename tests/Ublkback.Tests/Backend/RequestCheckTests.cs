using NUnit.Framework;
using Ublkback.Backend.Report;
using Ublkback.Backend.Requests;
using Ublkback.Blkif;
using Ublkback.Block;

namespace Ublkback.Tests.Backend;

public sealed class RequestCheckTests
{
    private static readonly ImageGeometry Disk = new(1000, 512, 512, IsReadOnly: false);

    [TestCase(BlkifOperation.Read, 0ul, RequestFault.None)]
    [TestCase(BlkifOperation.Write, 992ul, RequestFault.None)]
    [TestCase(BlkifOperation.Write, 993ul, RequestFault.PastEnd)]
    [TestCase(BlkifOperation.Read, 1000ul, RequestFault.PastEnd)]
    [TestCase(BlkifOperation.Read, ulong.MaxValue, RequestFault.PastEnd)]
    [TestCase(BlkifOperation.Read, ulong.MaxValue - 7, RequestFault.PastEnd)]
    [TestCase(BlkifOperation.Read, 1ul << 55, RequestFault.PastEnd)]
    [TestCase(BlkifOperation.FlushDiskCache, 0ul, RequestFault.None)]
    [TestCase(BlkifOperation.FlushDiskCache, 993ul, RequestFault.PastEnd)]
    [TestCase(BlkifOperation.Discard, 0ul, RequestFault.UnknownOperation)]
    [TestCase(BlkifOperation.WriteBarrier, 0ul, RequestFault.None)]
    [TestCase(BlkifOperation.WriteBarrier, 993ul, RequestFault.PastEnd)]
    [TestCase((BlkifOperation)255, 0ul, RequestFault.UnknownOperation)]
    public void Checks_operation_and_range(BlkifOperation operation, ulong sector, RequestFault expected) =>
        Assert.That(Check(Request(operation, sector, new BlkifSegment(1, 0, 7)), Disk, out _), Is.EqualTo(expected));

    [TestCase(0, 7, RequestFault.None)]
    [TestCase(3, 3, RequestFault.None)]
    [TestCase(4, 3, RequestFault.BadSegment)]
    [TestCase(0, 8, RequestFault.BadSegment)]
    [TestCase(0, 255, RequestFault.BadSegment)]
    [TestCase(255, 255, RequestFault.BadSegment)]
    public void Checks_segments(int first, int last, RequestFault expected) =>
        Assert.That(
            Check(Request(BlkifOperation.Read, 0, new BlkifSegment(1, (byte)first, (byte)last)), Disk, out _),
            Is.EqualTo(expected));

    [Test]
    public void Counts_sectors_of_all_segments()
    {
        BlkifRequest request = Request(
            BlkifOperation.Read, 5, new BlkifSegment(1, 0, 7), new BlkifSegment(2, 2, 2), new BlkifSegment(3, 6, 7));

        Assert.That(Check(request, Disk, out long count), Is.EqualTo(RequestFault.None));
        Assert.That(count, Is.EqualTo(11));
    }

    [TestCase(12)]
    [TestCase(255)]
    public void Refuses_more_segments_than_a_slot_has(int count)
    {
        BlkifRequest request = Request(BlkifOperation.Read, 0);
        request.SegmentCount = (byte)count;

        Assert.That(Check(request, Disk, out _), Is.EqualTo(RequestFault.TooManySegments));
    }

    [Test]
    public void A_transfer_needs_segments_and_a_flush_does_not()
    {
        Assert.That(Check(Request(BlkifOperation.Write, 0), Disk, out _), Is.EqualTo(RequestFault.NoSectors));
        Assert.That(Check(Request(BlkifOperation.FlushDiskCache, 0), Disk, out _), Is.EqualTo(RequestFault.None));
        Assert.That(Check(Request(BlkifOperation.WriteBarrier, 0), Disk, out _), Is.EqualTo(RequestFault.None));
    }

    [TestCase(0ul, 8ul, 0, RequestFault.None)]
    [TestCase(0ul, 1000ul, 0, RequestFault.None)]
    [TestCase(0ul, 1001ul, 0, RequestFault.PastEnd)]
    [TestCase(8ul, ulong.MaxValue, 0, RequestFault.PastEnd)]
    [TestCase(ulong.MaxValue, 2ul, 0, RequestFault.PastEnd)]
    [TestCase(0ul, 0ul, 0, RequestFault.NoSectors)]
    [TestCase(0ul, 8ul, 1, RequestFault.UnknownOperation, TestName = "A secure discard is not offered")]
    public void Checks_discards(ulong sector, ulong count, int flag, RequestFault expected)
    {
        BlkifRequest request = Request(BlkifOperation.Discard, sector);
        request.DiscardSectorCount = count;
        request.SegmentCount = (byte)flag;

        Assert.That(Check(request, Disk with { DiscardGranularity = 4096 }, out _), Is.EqualTo(expected));
        Assert.That(Check(request, Disk, out _), Is.EqualTo(RequestFault.UnknownOperation), "not offered");
    }

    [TestCase(BlkifOperation.Read, 256, RequestFault.None)]
    [TestCase(BlkifOperation.Write, 256, RequestFault.None)]
    [TestCase(BlkifOperation.Write, 257, RequestFault.TooManySegments)]
    [TestCase(BlkifOperation.Write, 65535, RequestFault.TooManySegments)]
    [TestCase(BlkifOperation.FlushDiskCache, 1, RequestFault.UnknownOperation)]
    [TestCase(BlkifOperation.Indirect, 1, RequestFault.UnknownOperation)]
    [TestCase(BlkifOperation.Discard, 1, RequestFault.UnknownOperation)]
    public void Checks_indirect_requests(BlkifOperation inner, int count, RequestFault expected)
    {
        BlkifRequest request = Request(BlkifOperation.Indirect, 0);
        request.SegmentCount = (byte)inner;
        request.Handle = (ushort)count;

        Assert.That(RequestCheck.CheckSlot(request, Disk, out int segments), Is.EqualTo(expected));
        if (expected == RequestFault.None) Assert.That(segments, Is.EqualTo(count));
    }

    [Test]
    public void An_indirect_request_without_segments_is_refused()
    {
        BlkifRequest request = Request(BlkifOperation.Indirect, 0);
        request.SegmentCount = (byte)BlkifOperation.Write;

        Assert.That(RequestCheck.CheckRange(request, [], Disk, out _), Is.EqualTo(RequestFault.NoSectors));
    }

    [Test]
    public void Nothing_is_written_to_a_read_only_disk()
    {
        ImageGeometry readOnly = Disk with { IsReadOnly = true };
        BlkifSegment segment = new(1, 0, 0);

        Assert.That(
            Check(Request(BlkifOperation.Write, 0, segment), readOnly, out _), Is.EqualTo(RequestFault.ReadOnly));
        Assert.That(
            Check(Request(BlkifOperation.FlushDiskCache, 0, segment), readOnly, out _),
            Is.EqualTo(RequestFault.ReadOnly));
        Assert.That(Check(Request(BlkifOperation.Read, 0, segment), readOnly, out _), Is.EqualTo(RequestFault.None));
        Assert.That(Check(Request(BlkifOperation.FlushDiskCache, 0), readOnly, out _), Is.EqualTo(RequestFault.None));
    }

    [TestCase(0ul, 7, RequestFault.None)]
    [TestCase(8ul, 7, RequestFault.None)]
    [TestCase(1ul, 7, RequestFault.Unaligned)]
    [TestCase(0ul, 3, RequestFault.Unaligned)]
    public void Large_sectors_want_whole_ones(ulong sector, int last, RequestFault expected)
    {
        ImageGeometry large = new(1000, 4096, 4096, false);

        Assert.That(
            Check(Request(BlkifOperation.Read, sector, new BlkifSegment(1, 0, (byte)last)), large, out _),
            Is.EqualTo(expected));
    }

    private static RequestFault Check(in BlkifRequest request, ImageGeometry geometry, out long sectorCount)
    {
        sectorCount = 0;
        RequestFault fault = RequestCheck.CheckSlot(request, geometry, out int count);
        return fault != RequestFault.None
            ? fault
            : RequestCheck.CheckRange(
                request, ((ReadOnlySpan<BlkifSegment>)request.Segments)[..count], geometry, out sectorCount);
    }

    private static BlkifRequest Request(BlkifOperation operation, ulong sector, params BlkifSegment[] segments)
    {
        BlkifRequest request = new() { Operation = operation, Sector = sector, SegmentCount = (byte)segments.Length };
        for (int i = 0; i < segments.Length; i++) request.Segments[i] = segments[i];
        return request;
    }
}
