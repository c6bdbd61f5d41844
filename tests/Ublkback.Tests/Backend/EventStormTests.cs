using System.Diagnostics;
using System.Globalization;
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

    /// <summary>
    /// Events of any number and distance, also at the ends of hold-offs, with bad requests among them and others in
    /// flight. <c>UBLKBACK_FUZZ_SEED</c> repeats a run, <c>UBLKBACK_FUZZ_STORMS</c> makes a thorough one.
    /// </summary>
    [Test]
    public async Task After_any_storm_of_events_a_plain_read_is_answered([Values(0, 3)] int order)
    {
        int seed = Number("SEED", Environment.TickCount), storms = Number("STORMS", 12);
        TestContext.Out.WriteLine($"UBLKBACK_FUZZ_SEED={seed}");
        Random random = new(seed);
        BlkfrontOptions options = new(BlkifAbi.X86_64, order, IsPersistent: random.Next(2) == 0);
        await using Blkfront disk = await ConnectAsync(DeviceId, "a", "manual", options);
        await using Blkfront held = await ConnectAsync(DeviceId + 16, "b", options: options);
        ManualImages["a"].EndAll();
        List<Task> inFlight = [];
        for (int storm = 0; storm < storms; storm++)
        {
            bool isPlain = random.Next(2) == 0;
            Blkfront target = random.Next(4) == 0 ? held : disk;
            long start = Stopwatch.GetTimestamp();
            for (int left = 1 << random.Next(13);
                left > 0 && Stopwatch.GetElapsedTime(start) < TimeSpan.FromMilliseconds(120);
                left--)
            {
                target.Notify();
                int ending = (1000 << random.Next(6)) + random.Next(-90, 90); // about when a hold-off ends
                if (random.Next(64) == 0) Spin(TimeSpan.FromMicroseconds(ending));
                else if (random.Next(8) == 0) Spin(TimeSpan.FromMicroseconds(random.Next(300)));
                if (isPlain || random.Next(16) != 0 || inFlight.Count >= disk.SlotCount / 2) continue;
                inFlight.Add(random.Next(2) == 0
                    ? target.ReadAsync(0, new byte[4096])
                    : target.SubmitAsync(new BlkifRequest { Operation = (BlkifOperation)99 }));
            }

            Assert.That(await disk.ReadAsync(8, new byte[512]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
            inFlight.RemoveAll(request => request.IsCompleted);
        }

        Images["b"].Open();
        Assert.That(await held.ReadAsync(0, new byte[512]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
        await Task.WhenAll(inFlight).WaitAsync(Soon);
    }

    private static void Spin(TimeSpan time)
    {
        long start = Stopwatch.GetTimestamp();
        while (Stopwatch.GetElapsedTime(start) < time) Thread.SpinWait(20);
    }

    private static int Number(string name, int otherwise) =>
        int.TryParse(
            Environment.GetEnvironmentVariable($"UBLKBACK_FUZZ_{name}"), CultureInfo.InvariantCulture, out int number)
                ? number
                : otherwise;

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
