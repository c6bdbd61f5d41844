using NUnit.Framework;
using Ublkback.Block;

namespace Ublkback.Tests.Hooks;

public sealed class FaultTests : HookFixture
{
    [Test]
    public async Task Fails_every_nth_of_those_that_match()
    {
        IBlockImage image = Open("fault(op=write,sectors=8-15,every=3,error=nospace)");
        List<BlockStatus> matching = [], others = [];
        for (int i = 0; i < 9; i++)
        {
            matching.Add(await WriteAsync(image, 4, new byte[512 * 5]));
            others.Add(await ReadAsync(image, 8, new byte[512]));
            others.Add(await WriteAsync(image, 16, new byte[512]));
            others.Add(await WriteAsync(image, 0, new byte[512 * 8]));
        }

        Assert.That(
            matching,
            Is.EqualTo(Enumerable.Range(1, 9).Select(i => i % 3 == 0 ? BlockStatus.NoSpace : BlockStatus.Okay)));
        Assert.That(others, Is.All.EqualTo(BlockStatus.Okay));
        Assert.That(ImageRequests, Is.EqualTo(6 + 27), "a failed request never reaches the image");
    }

    [Test]
    public async Task Probability_repeats_with_its_seed()
    {
        List<BlockStatus>[] runs = new List<BlockStatus>[3];
        for (int run = 0; run < 3; run++)
        {
            IBlockImage image = Open($"fault(probability=0.25,seed={run / 2})");
            runs[run] = [];
            for (int i = 0; i < 400; i++) runs[run].Add(await ReadAsync(image, 0, new byte[512]));
        }

        Assert.That(runs[0], Is.EqualTo(runs[1]).And.Not.EqualTo(runs[2]));
        Assert.That(runs[0].Count(status => status == BlockStatus.IoError), Is.InRange(60, 140));
    }

    [TestCase("fault(every=0)", "every=0")]
    [TestCase("fault(probability=1.5)", "not a number from 0 to 1")]
    [TestCase("fault(sectors=9-8)", "FIRST-LAST")]
    [TestCase("fault(op=erase)", "use op=any or op=read")]
    [TestCase("fault(colour=red)", "unknown argument colour")]
    [TestCase("delay", "write delay(time=5ms)")]
    [TestCase("delay(time=5)", "a duration such as 5ms")]
    [TestCase("delay(time=5000000000000s)", "a duration such as 5ms")]
    [TestCase("throttle(iops=many)", "not a whole number")]
    [TestCase("throttle(bandwidth=10Q)", "a size such as 10M")]
    public void Says_what_is_wrong(string hooks, string part) =>
        Assert.That(() => Open(hooks), Throws.TypeOf<TargetException>().With.Message.Contains(part));
}
