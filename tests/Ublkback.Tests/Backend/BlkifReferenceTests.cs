using NUnit.Framework;
using Ublkback.Backend.Requests;
using Ublkback.Backend.Vbds;
using Ublkback.Backend.Xenbus;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;

namespace Ublkback.Tests.Backend;

/// <summary>The reference counts that the TODO of 2005 asks for, under unplug with I/O in flight.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class BlkifReferenceTests : BackendFixture
{
    private const int DeviceId = 51712;
    private const int InFlight = 5;

    private static readonly string BackendPath = $"/local/domain/0/backend/vbd/1/{DeviceId}";

    [Test]
    public async Task Unplugging_waits_for_what_is_in_flight_then_frees_all_once()
    {
        await using Blkfront disk = await ConnectAsync(DeviceId, "a");
        GateImage image = Images["a"];
        Task<BlkifStatus>[] reads = [
            .. Enumerable.Range(0, InFlight).Select(i => disk.ReadAsync((ulong)i * 8, new byte[4096]))];
        for (int i = 0; i < InFlight; i++) await image.ArrivedAsync();
        Assert.That(Hypervisor.Held, Is.EqualTo((1, 1)));

        // By force: the toolstack removes the frontend's directory under load.
        await Store.WriteAsync($"{BackendPath}/online", "0");
        await Store.RemoveAsync(FrontendConnection.FrontendPath(1, DeviceId));
        Vbd vbd = Vbds.Find(new VbdAddress("vbd", 1, DeviceId))!;
        await RefusesNewRequestsAsync(disk);

        Assert.That(Hypervisor.Held, Is.EqualTo((1, 1)), "requests in flight hold the blkif");
        Assert.That(image.DisposeCount, Is.Zero);
        Assert.That(vbd.Statistics.InFlight, Is.EqualTo(InFlight));

        image.Open();
        Assert.That(await Task.WhenAll(reads).WaitAsync(Soon), Is.All.EqualTo(BlkifStatus.Okay), "each was answered");
        await image.Disposed.WaitAsync(Soon);
        await FrontendConnection.WaitForStateAsync(Store, BackendPath, Soon, "6");
        Assert.That(Hypervisor.Held, Is.EqualTo((0, 0)));
        Assert.That(image.DisposeCount, Is.EqualTo(1));
        Assert.That(vbd.Statistics.InFlight, Is.Zero);
    }

    [Test]
    public async Task A_reconnecting_guest_gets_a_new_ring_and_the_same_image()
    {
        Blkfront first = await ConnectAsync(DeviceId, "a");
        GateImage image = Images["a"];
        image.Open();
        Assert.That(await first.WriteAsync(0, new byte[512]), Is.EqualTo(BlkifStatus.Okay));
        await first.CloseAsync(Soon);
        Assert.That(Hypervisor.Held, Is.EqualTo((0, 0)));
        Assert.That(image.DisposeCount, Is.Zero, "the device is still online");

        await Store.WriteAsync($"{FrontendConnection.FrontendPath(1, DeviceId)}/state", "1");
        await using Blkfront second = await Blkfront.ConnectAsync(
            Guest, Store, DeviceId, new BlkfrontOptions(BlkifAbi.X86_32, 3), Soon);
        Assert.That(await second.WriteAsync(0, new byte[512]), Is.EqualTo(BlkifStatus.Okay));
        Assert.That(second.SlotCount, Is.EqualTo(256));
        Assert.That(Hypervisor.MapCount, Is.EqualTo(2));
        Assert.That(image.DisposeCount, Is.Zero);
    }

    [Test]
    public void A_reference_too_many_is_a_bug()
    {
        Counted counted = new();
        counted.AddReference();
        counted.DropReference();
        Assert.That(counted.Releases, Is.Zero);
        counted.DropReference();
        Assert.That(counted.Releases, Is.EqualTo(1));
        Assert.That(counted.DropReference, Throws.InvalidOperationException);
        Assert.That(counted.AddReference, Throws.InvalidOperationException);
    }

    // Once the ring is stopped a request stays where it is; until then it is taken and held by the image.
    private async Task RefusesNewRequestsAsync(Blkfront disk)
    {
        await FrontendConnection.WaitForStateAsync(Store, BackendPath, Soon, "4");
        Assert.That(disk.Ring.FreeCount, Is.EqualTo(disk.SlotCount - InFlight));
    }

    private sealed class Counted : ReferenceCounted
    {
        public int Releases { get; private set; }

        protected override void Release() => Releases++;
    }
}
