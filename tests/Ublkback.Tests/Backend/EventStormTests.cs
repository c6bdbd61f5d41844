using System.Diagnostics;
using NUnit.Framework;
using Ublkback.Backend.Rings;
using Ublkback.Backend.Vbds;
using Ublkback.Backend.Xenbus;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;

namespace Ublkback.Tests.Backend;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class EventStormTests : BackendFixture
{
    private const int DeviceId = 51712;

    [Test]
    public async Task A_guest_that_only_notifies_is_listened_to_now_and_then_until_it_has_a_request()
    {
        await using Blkfront disk = await ConnectAsync(DeviceId, "a");
        Images["a"].Open();
        Vbd vbd = Vbds.Find(new VbdAddress("vbd", 1, DeviceId))!;
        long before = vbd.Statistics.Events;
        long start = Stopwatch.GetTimestamp();
        while (Stopwatch.GetElapsedTime(start) < TimeSpan.FromMilliseconds(300)) disk.Notify();
        await WorkerHasLookedAsync();
        long events = vbd.Statistics.Events - before;
        double milliseconds = Stopwatch.GetElapsedTime(start).TotalMilliseconds;

        const int Doublings = 6;
        Assert.That(
            events,
            Is.InRange(1, EventThrottle.MaxVainEvents + Doublings + (milliseconds / EventThrottle.MaxMilliseconds)));
        Assert.That(await disk.WriteAsync(0, new byte[512]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
    }

    [Test]
    public void Requests_end_the_hold_off()
    {
        EventThrottle holdOff = new();
        for (int i = 0; i < EventThrottle.MaxVainEvents; i++) holdOff.OnEvent();
        Assert.That(holdOff.Ticks, Is.Zero);
        for (int i = 0; i < 20; i++) holdOff.OnEvent();
        Assert.That(holdOff.Ticks, Is.EqualTo(Stopwatch.Frequency / 1000 * EventThrottle.MaxMilliseconds));
        holdOff.OnRequest();
        holdOff.OnEvent();
        Assert.That(holdOff.Ticks, Is.Zero);
    }
}
