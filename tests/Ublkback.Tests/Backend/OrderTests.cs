using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.EmulatedHost.Frontend;

namespace Ublkback.Tests.Backend;

/// <summary>Which requests of a ring may be below the image at the same time.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class OrderTests : BackendFixture
{
    private const int DeviceId = 51712;

    [Test]
    public async Task A_barrier_drains_syncs_writes_and_syncs_while_others_wait()
    {
        await using Blkfront disk = await ConnectAsync(DeviceId, "a", "manual");
        ManualImage image = ManualImages["a"];
        Task<BlkifStatus> before = disk.WriteAsync(0, new byte[512]);
        ManualImage.Arrival first = await image.NextAsync();
        Task<BlkifStatus> barrier = disk.WriteBarrierAsync(8, new byte[1024]);
        Task<BlkifStatus> after = disk.ReadAsync(16, new byte[512]);
        await WorkerHasLookedAsync();
        Assert.That(image.HasArrival, Is.False, "the write before it is not done");

        first.End();
        foreach ((BlockOperation Operation, ulong Sector, long Count) step in new (BlockOperation, ulong, long)[]
        {
            (BlockOperation.Flush, 0, 0), (BlockOperation.Write, 8, 2), (BlockOperation.Flush, 0, 0),
        })
        {
            ManualImage.Arrival arrival = await image.NextAsync();
            Assert.That(arrival.Asked, Is.EqualTo(step));
            Assert.That(image.HasArrival, Is.False, "a barrier is alone");
            arrival.End();
        }

        ManualImage.Arrival read = await image.NextAsync();
        Assert.That(read.Asked, Is.EqualTo((BlockOperation.Read, 16ul, 1L)));
        read.End();
        Assert.That(await Task.WhenAll(before, barrier, after).WaitAsync(Soon), Is.All.EqualTo(BlkifStatus.Okay));
    }

    [Test]
    public async Task A_barrier_whose_first_sync_fails_writes_nothing()
    {
        await using Blkfront disk = await ConnectAsync(DeviceId, "a", "manual");
        Task<BlkifStatus> barrier = disk.WriteBarrierAsync(8, new byte[512]);
        (await ManualImages["a"].NextAsync()).End(BlockStatus.IoError);

        Assert.That(await barrier.WaitAsync(Soon), Is.EqualTo(BlkifStatus.Error));
        Assert.That(ManualImages["a"].HasArrival, Is.False);
    }

    [Test]
    public async Task A_discard_waits_for_writes_that_it_overlaps_and_they_for_it()
    {
        await using Blkfront disk = await ConnectAsync(DeviceId, "a", "manual");
        ManualImage image = ManualImages["a"];
        Task<BlkifStatus> near = disk.WriteAsync(96, new byte[4096]);
        ManualImage.Arrival write = await image.NextAsync();
        Task<BlkifStatus> discard = disk.DiscardAsync(100, 100);
        await WorkerHasLookedAsync();
        Assert.That(image.HasArrival, Is.False, "the write overlaps by four sectors");

        write.End();
        ManualImage.Arrival freeing = await image.NextAsync();
        Assert.That(freeing.Asked, Is.EqualTo((BlockOperation.Discard, 100ul, 100L)));
        Task<BlkifStatus> beside = disk.WriteAsync(200, new byte[512]);
        ManualImage.Arrival passing = await image.NextAsync();
        Assert.That(passing.Asked.Sector, Is.EqualTo(200), "it only touches the range's end");
        Task<BlkifStatus> inside = disk.WriteAsync(199, new byte[512]);
        await WorkerHasLookedAsync();
        Assert.That(image.HasArrival, Is.False, "the discard is not done");

        freeing.End();
        passing.End();
        ManualImage.Arrival last = await image.NextAsync();
        Assert.That(last.Asked, Is.EqualTo((BlockOperation.Write, 199ul, 1L)));
        last.End();
        Assert.That(
            await Task.WhenAll(near, discard, beside, inside).WaitAsync(Soon), Is.All.EqualTo(BlkifStatus.Okay));
    }

    [Test]
    public async Task What_waits_when_the_disk_is_taken_away_is_served_first()
    {
        await using Blkfront disk = await ConnectAsync(DeviceId, "a", "manual");
        ManualImage image = ManualImages["a"];
        Task<BlkifStatus> write = disk.WriteAsync(0, new byte[512]);
        ManualImage.Arrival running = await image.NextAsync();
        Task<BlkifStatus> barrier = disk.WriteBarrierAsync(8, new byte[512]);
        await WorkerHasLookedAsync();
        await Store.RemoveAsync(FrontendConnection.FrontendPath(1, DeviceId));

        image.EndAll();
        running.End();
        Assert.That(await write.WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
        Assert.That(await barrier.WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
        await FrontendConnection.WaitForStateAsync(Store, $"/local/domain/0/backend/vbd/1/{DeviceId}", Soon, "6");
        Assert.That(Hypervisor.Held, Is.EqualTo((0, 0)));
    }
}
