using NUnit.Framework;
using Ublkback.Block;

namespace Ublkback.Tests.Block;

public sealed class SeamRuleTests
{
    private static readonly ImageGeometry Disk = new(64, 4096, 4096, IsReadOnly: false);

    [TestCase(BlockOperation.Read, 0UL, 64, 64, null)]
    [TestCase(BlockOperation.Flush, 0UL, 0, 0, null)]
    [TestCase(BlockOperation.Flush, 0UL, 8, 0, "a flush with data")]
    [TestCase(BlockOperation.Read, 0UL, 0, 0, "0 sectors")]
    [TestCase(BlockOperation.Read, 64UL, 8, 8, "8 sectors at 64 of 64")]
    [TestCase(BlockOperation.Read, ulong.MaxValue, 8, 8, "8 sectors at 18446744073709551615 of 64")]
    [TestCase(BlockOperation.Write, 4UL, 8, 8, "not in whole sectors of 4096 bytes")]
    [TestCase(BlockOperation.Write, 0UL, 8, 4, "2048 bytes of data for 8 sectors")]
    [TestCase(BlockOperation.Discard, 0UL, 8, 0, "a discard, which is not offered")]
    public void A_request_that_breaks_the_rule_has_a_fault(
        BlockOperation operation, ulong sector, int count, int dataSectors, string? fault)
    {
        BlockRequest request = Request(operation, sector, count, dataSectors);

        Assert.That(SeamRule.FindFault(request, Disk), Is.EqualTo(fault));
    }

    [Test]
    public void The_shape_of_a_request_does_not_depend_on_the_end_of_the_image() => Assert.That(
        SeamRule.FindShapeFault(Request(BlockOperation.Read, 64, 8, 8), Disk), Is.Null);

    [TestCase(0, 1024, null)]
    [TestCase(512, 1024, "1024 bytes at 512 of 1024")]
    [TestCase(-512, 512, "512 bytes at -512 of 1024")]
    [TestCase(long.MaxValue - 511, 512, "512 bytes at 9223372036854775296 of 1024")]
    [TestCase(100, 512, "512 bytes at 100: not in whole sectors")]
    public void A_range_outside_a_container_has_a_fault(long offset, long byteCount, string? fault) =>
        Assert.That(SeamRule.FindFault(offset, byteCount, 1024), Is.EqualTo(fault));

    // The calls are compiled into Debug builds of this file only, as everywhere.
    [Test]
    public void Debug_builds_assert_the_rule_and_Release_builds_do_not()
    {
        BlockRequest bad = Request(BlockOperation.Read, 64, 8, 8);
        Action[] asserts =
        [
            () => SeamAssert.IsValid(bad, Disk, "seam"),
            () => SeamAssert.HasValidShape(Request(BlockOperation.Read, 64, 8, 4), Disk, "seam"),
            () => SeamAssert.IsInside(1024, 512, 1024, "seam"),
            () => SeamAssert.IsOnce(false, "seam"),
        ];
#if DEBUG
        foreach (Action assert in asserts)
            Assert.That(assert, Throws.InvalidOperationException.With.Message.StartsWith("seam: "));
#else
        foreach (Action assert in asserts) Assert.That(assert, Throws.Nothing);
#endif
    }

    private static BlockRequest Request(BlockOperation operation, ulong sector, int count, int dataSectors) => new()
    {
        Operation = operation,
        Sector = sector,
        SectorCount = count,
        Data = new byte[dataSectors * BlockRequest.SectorSize],
    };
}
