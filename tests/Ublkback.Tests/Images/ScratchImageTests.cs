using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Images.Raw;
using Ublkback.Linux.Workers;

namespace Ublkback.Tests.Images;

public sealed class ScratchImageTests
{
    private Worker _worker = null!;

    [SetUp]
    public void Start() => _worker = new Worker("test");

    [TearDown]
    public void Stop() => _worker.Dispose();

    [Test]
    public async Task Memory_keeps_what_is_written_until_it_is_discarded()
    {
        await using IBlockImage image = Open("memory:1M");
        Assert.That((image.Geometry.SectorCount, image.Geometry.DiscardGranularity), Is.EqualTo((2048, 4096)));
        Assert.That(await DoAsync(image, BlockOperation.Write, 7), Is.All.EqualTo(7));
        Assert.That(await DoAsync(image, BlockOperation.Read, 1), Is.All.EqualTo(7));
        await DoAsync(image, BlockOperation.Discard, 0);
        Assert.That(await DoAsync(image, BlockOperation.Read, 1), Is.All.Zero);
        await DoAsync(image, BlockOperation.Flush, 0);
    }

    [Test]
    public async Task Each_memory_is_another_disk()
    {
        await using IBlockImage one = Open("memory:1M"), other = Open("memory:1M");
        Assert.That(one.Identity, Is.Not.EqualTo(other.Identity));
    }

    [Test]
    public async Task Null_forgets()
    {
        await using IBlockImage image = Open("null:1G");
        Assert.That((image.Geometry.SectorCount, image.Identity), Is.EqualTo((2097152, "null 2097152")));
        await DoAsync(image, BlockOperation.Write, 7);
        Assert.That(await DoAsync(image, BlockOperation.Read, 1), Is.All.Zero);
    }

    [TestCase("memory:much", "size=much is not a size such as 10M")]
    [TestCase("null:0", "null:0 has 0 bytes")]
    [TestCase("memory:4095", "memory:4095 has 4095 bytes: give a multiple of 4096")]
    [TestCase("memory:1M?cache=none", "unknown option cache")]
    public void Says_what_is_wrong(string target, string part) =>
        Assert.That(() => Open(target), Throws.TypeOf<TargetException>().With.Message.Contains(part));

    private static IBlockImage Open(string target) => new BlockCatalog()
        .AddImage("memory", ScratchImageOpener.OpenMemory).AddImage("null", ScratchImageOpener.OpenNull)
        .Open(BlockTarget.Parse(target), new ImageOpening("the test", 0, false, true, null, _ => { }));

    // On the third page; gives the data.
    private async Task<byte[]> DoAsync(IBlockImage image, BlockOperation operation, byte fill)
    {
        TaskCompletionSource<BlockStatus> done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        RequestPool requests = new();
        BlockRequest request = operation == BlockOperation.Flush
            ? requests.Rent(operation, 0, 0)
            : requests.Rent(operation, 16, 8);
        request.Data.Span.Fill(fill);
        _worker.Post(async () => done.SetResult(await image.HandleAsync(request)));
        Assert.That(await done.Task.WaitAsync(TimeSpan.FromSeconds(10)), Is.EqualTo(BlockStatus.Okay));
        return request.Data.ToArray();
    }
}
