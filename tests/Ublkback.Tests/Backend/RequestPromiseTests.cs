using NUnit.Framework;
using Ublkback.Backend.Requests;
using Ublkback.Block;
using Ublkback.Linux.Kernel;

namespace Ublkback.Tests.Backend;

public sealed class RequestPromiseTests
{
    private static readonly ImageGeometry Disk = new(1000, 4096, 4096, IsReadOnly: false, DiscardGranularity: 4096);

    [TestCase(BlockOperation.Read, 0ul, 8, 4096)]
    [TestCase(BlockOperation.Write, 992ul, 8, 4096)]
    [TestCase(BlockOperation.Discard, 8ul, 16, 0)]
    [TestCase(BlockOperation.Flush, 0ul, 0, 0)]
    public void A_valid_request_keeps_the_promise(BlockOperation operation, ulong sector, int count, int bytes) =>
        Assert.That(RequestPromise.FindBreach(Request(operation, sector, count, bytes), Disk), Is.Null);

    [TestCase(BlockOperation.Read, 1000ul, 8, 4096, "outside")]
    [TestCase(BlockOperation.Write, ulong.MaxValue - 7, 8, 4096, "outside")]
    [TestCase(BlockOperation.Read, 0ul, 0, 0, "outside")]
    [TestCase(BlockOperation.Discard, 0ul, 1008, 0, "outside")]
    [TestCase(BlockOperation.Read, 0ul, 8, 512, "bytes of data")]
    [TestCase(BlockOperation.Discard, 0ul, 8, 512, "bytes of data")]
    [TestCase(BlockOperation.Read, 1ul, 8, 4096, "whole sectors")]
    [TestCase(BlockOperation.Write, 0ul, 1, 512, "whole sectors")]
    [TestCase(BlockOperation.Flush, 8ul, 0, 0, "range")]
    public void An_invalid_request_breaks_the_promise(
        BlockOperation operation, ulong sector, int count, int bytes, string breach) =>
        Assert.That(
            RequestPromise.FindBreach(Request(operation, sector, count, bytes), Disk), Does.Contain(breach));

    [Test]
    public void Data_off_a_page_boundary_breaks_the_promise()
    {
        BlockRequest request = Request(BlockOperation.Read, 0, 8, 4096);
        request.Data = PinnedMemory.AllocatePages(8192).Slice(512, 4096);

        Assert.That(RequestPromise.FindBreach(request, Disk), Does.Contain("page boundary"));
    }

    [Test]
    public void A_write_of_a_read_only_image_breaks_the_promise() => Assert.That(
        RequestPromise.FindBreach(Request(BlockOperation.Write, 0, 8, 4096), Disk with { IsReadOnly = true }),
        Does.Contain("read-only"));

#if DEBUG
    // The test host throws where a program would end.
    [Test]
    public void A_broken_promise_fails_an_assertion() =>
        Assert.Catch(() => RequestPromise.Assert(Request(BlockOperation.Read, 1000, 8, 4096), Disk));
#endif

    private static BlockRequest Request(BlockOperation operation, ulong sector, int count, int bytes) => new()
    {
        Operation = operation,
        Sector = sector,
        SectorCount = count,
        Data = bytes == 0 ? default : PinnedMemory.AllocatePages(bytes),
    };
}
