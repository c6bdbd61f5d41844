using System.Diagnostics;
using NUnit.Framework;
using Ublkback.Block;

namespace Ublkback.Tests.Hooks;

public sealed class TimeTests : HookFixture
{
    [Test]
    public async Task Delayed_requests_go_on_when_their_time_has_come_others_at_once()
    {
        IBlockImage image = Open("delay(time=30ms,op=read)");
        (bool WasWriteDone, bool WasReadDone, TimeSpan Time) seen = await OnWorker(async () =>
        {
            long start = Stopwatch.GetTimestamp();
            Task<BlockStatus> read = image.HandleAsync(Request(BlockOperation.Read, 0, new byte[512])).AsTask();
            Task<BlockStatus> write = image.HandleAsync(Request(BlockOperation.Write, 0, new byte[512])).AsTask();
            bool wasWriteDone = write.IsCompleted, wasReadDone = read.IsCompleted;
            await read;
            return (wasWriteDone, wasReadDone, Stopwatch.GetElapsedTime(start));
        });

        Assert.That((seen.WasWriteDone, seen.WasReadDone), Is.EqualTo((true, false)));
        Assert.That(seen.Time, Is.GreaterThanOrEqualTo(TimeSpan.FromMilliseconds(30)));
    }

    [Test]
    public async Task A_throttle_never_lets_more_through_than_it_says_also_as_a_group()
    {
        IBlockImage[] disks = [
            Open("throttle(iops=200,burst=0ms,group=two)"), Open("throttle(iops=200,burst=0ms,group=two)")];
        const int Requests = 41;
        TimeSpan time = await OnWorker(async () =>
        {
            long start = Stopwatch.GetTimestamp();
            Task<BlockStatus>[] all = [.. Enumerable.Range(0, Requests).Select(
                i => disks[i % 2].HandleAsync(Request(BlockOperation.Read, 0, new byte[512])).AsTask())];
            await Task.WhenAll(all);
            return Stopwatch.GetElapsedTime(start);
        });

        Assert.That(time, Is.GreaterThanOrEqualTo(TimeSpan.FromMilliseconds(199)));
    }

    [Test]
    public async Task A_throttle_is_changed_while_it_runs()
    {
        IBlockImage image = Open("throttle(iops=1,burst=0ms)");
        ((BlockPipeline)image).Change(HookTarget.Parse("throttle(iops=0)"));
        for (int i = 0; i < 100; i++)
            Assert.That(await ReadAsync(image, 0, new byte[512]), Is.EqualTo(BlockStatus.Okay));

        Assert.That(
            () => ((BlockPipeline)image).Change(HookTarget.Parse("throttle(group=x)")),
            Throws.TypeOf<TargetException>().With.Message.Contains("unknown argument group"));
        Assert.That(
            () => ((BlockPipeline)image).Change(HookTarget.Parse("delay(time=1s)")),
            Throws.TypeOf<TargetException>().With.Message.EqualTo("the disk has no hook delay, but throttle"));
    }
}
