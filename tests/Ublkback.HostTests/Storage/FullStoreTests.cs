using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Storage;

/// <summary>Stores of VDIs whose storage is full.</summary>
public sealed class FullStoreTests : VdiFixture
{
    private const int DiskSize = 8 << 20;

    private string? _directory;

    [TearDown]
    public async Task Unmount()
    {
        if (_directory is not null) await RunOtherAsync("umount", "-l", _directory);
    }

    [Test]
    public async Task A_full_store_of_vdis_is_collected_before_a_guest_notices([Values] bool isOthers)
    {
        await MakeStoreAsync("60M");
        if (isOthers) await LeaveGarbageAsync("old", 12 << 20);
        (_, Blkfront disk) = await ConnectAsync(TargetOf("web"));
        await using (disk)
        {
            byte[] data = new byte[DiskSize];
            for (int i = 0; i < 20; i++)
            {
                Random.Shared.NextBytes(data);
                BlkifStatus[] statuses = await Task.WhenAll(Write(disk, data)).WaitAsync(Soon);
                Assert.That(statuses, Is.All.EqualTo(BlkifStatus.Okay), $"round {i}");
            }

            await HoldsAsync(disk, data);
            await disk.CloseAsync(Soon);
        }

        await VdiAsync("fsck");
    }

    [Test]
    public async Task A_full_store_of_vdis_holds_writes_until_something_is_deleted_and_given_back()
    {
        await MakeStoreAsync("52M");
        (_, Blkfront disk) = await ConnectAsync($"{TargetOf("web")}&on-error=hold");
        await using (disk)
        {
            byte[] data = new byte[DiskSize];
            for (int i = 0; i < 3; i++)
            {
                Random.Shared.NextBytes(data);
                Assert.That(await disk.WriteAsync(0, data).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
                await VdiAsync("snapshot", "web", $"s{i}");
            }

            Random.Shared.NextBytes(data);
            Task<BlkifStatus>[] writes = Write(disk, data);
            await AwaitLogAsync("requests are held (the storage is full)");
            Assert.That((await VbdAsync("list")).GetProperty("trouble").GetString(), Is.EqualTo("held: NoSpace"));
            Assert.That(
                await disk.ReadAsync(0, new byte[512]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay), "others go on");
            await VdiAsync("delete", "web@s0");
            await VdiAsync("delete", "web@s1");
            await VdiAsync("gc");
            Assert.That((await RunAsync("resume", "1", "xvda", "--host", Layout.Root)).Status, Is.Zero);
            Assert.That(await Task.WhenAll(writes).WaitAsync(Soon), Is.All.EqualTo(BlkifStatus.Okay));
            await HoldsAsync(disk, data);
            await disk.CloseAsync(Soon);
        }

        await VdiAsync("fsck");
    }

    [Test]
    public async Task A_vdi_that_is_overwritten_without_a_pause_takes_bounded_space()
    {
        const int Rounds = 250; // 2 GiB in all
        const long Bound = (DiskSize * 3 / 2) + (512L << 20);
        await MakeStoreAsync("4G");
        DriveInfo storage = new(_directory!);
        long before = storage.TotalFreeSpace, most = 0;
        (_, Blkfront disk) = await ConnectAsync(TargetOf("web"));
        await using (disk)
        {
            byte[] data = new byte[DiskSize];
            for (int i = 0; i < Rounds; i++)
            {
                Random.Shared.NextBytes(data.AsSpan(0, 4096));
                Assert.That(await Task.WhenAll(Write(disk, data)).WaitAsync(Soon), Is.All.EqualTo(BlkifStatus.Okay));
                most = Math.Max(most, before - storage.TotalFreeSpace);
            }

            await HoldsAsync(disk, data);
            await disk.CloseAsync(Soon);
        }

        Assert.That(most, Is.LessThan(Bound));
        await VdiAsync("fsck");
    }

    // In a VDI that nobody has open.
    private async Task LeaveGarbageAsync(string name, int size)
    {
        string image = Path.Combine(Scratch, "image.raw");
        byte[] data = new byte[size];
        Random.Shared.NextBytes(data);
        await File.WriteAllBytesAsync(image, data);
        await VdiAsync("create", name, "--from", image);
        await VdiAsync("snapshot", name, "s");
        await VdiAsync("resize", name, "1M", "--shrink");
        await VdiAsync("delete", $"{name}@s");
    }

    private async Task MakeStoreAsync(string size)
    {
        _directory = await MountSmallAsync(size);
        StoreOption = $"file:{_directory}/vdi";
        await VdiAsync("create", "web", $"{DiskSize}");
    }

    private static Task<BlkifStatus>[] Write(Blkfront disk, byte[] data) =>
        [.. Enumerable.Range(0, 8)
            .Select(part => disk.WriteAsync((ulong)(part << 11), data.AsMemory(part << 20, 1 << 20)))];

    private static async Task HoldsAsync(Blkfront disk, byte[] data)
    {
        byte[] read = new byte[DiskSize];
        Assert.That(await disk.ReadAsync(0, read), Is.EqualTo(BlkifStatus.Okay));
        Assert.That(read.AsSpan().SequenceEqual(data));
    }
}
