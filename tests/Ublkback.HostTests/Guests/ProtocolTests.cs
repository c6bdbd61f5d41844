using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Guests;

/// <summary>What the protocol offers beside reading and writing.</summary>
public sealed class ProtocolTests : HostFixture
{
    private static string Backend => $"/local/domain/0/backend/vbd/1/{Xvda}";

    [Test]
    public async Task All_that_is_offered_is_in_the_store()
    {
        (_, Blkfront disk) = await ConnectAsync(MakeImage("a.img"));
        await using (disk)
        {
            foreach ((string node, string value) in new[]
            {
                ("max-ring-page-order", "4"), ("multi-queue-max-queues", $"{Math.Min(Environment.ProcessorCount, 16)}"),
                ("feature-max-indirect-segments", "256"), ("feature-persistent", "1"), ("feature-flush-cache", "1"),
                ("feature-barrier", "1"), ("feature-discard", "1"), ("discard-granularity", "4096"),
                ("discard-alignment", "0"), ("discard-secure", "0"), ("sector-size", "512"),
                ("physical-sector-size", "512"),
            })
            {
                Assert.That(await disk.Connection.BackendNodeAsync(node), Is.EqualTo(value), node);
            }
        }
    }

    [Test]
    public async Task A_discard_frees_space_and_leaves_other_data()
    {
        string image = MakeImage("a.img");
        (_, Blkfront disk) = await ConnectAsync(image);
        await using (disk)
        {
            byte[] data = new byte[8 << 20];
            new Random(5).NextBytes(data);
            Assert.That(await disk.WriteAsync(0, data), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(await disk.FlushAsync(), Is.EqualTo(BlkifStatus.Okay));
            long before = await BlocksAsync(image);
            Assert.That(await disk.DiscardAsync(2048, 8192), Is.EqualTo(BlkifStatus.Okay));

            Assert.That(await BlocksAsync(image), Is.LessThanOrEqualTo(before - 8192));
            data.AsSpan(2048 * 512, 8192 * 512).Clear();
            Assert.That(File.ReadAllBytes(image).AsSpan().SequenceEqual(data), Is.True);
        }
    }

    [Test]
    public async Task Discards_that_are_wrong_change_nothing()
    {
        string image = MakeImage("a.img");
        File.WriteAllBytes(image, [.. Enumerable.Repeat((byte)9, 8 << 20)]);
        (_, Blkfront disk) = await ConnectAsync(image);
        await using (disk)
        {
            Assert.That(await disk.DiscardAsync(0, 0), Is.EqualTo(BlkifStatus.Error));
            Assert.That(await disk.DiscardAsync(1, disk.SectorCount), Is.EqualTo(BlkifStatus.Error));
            Assert.That(await disk.DiscardAsync(ulong.MaxValue, 2), Is.EqualTo(BlkifStatus.Error));
            Assert.That(await disk.DiscardAsync(8, ulong.MaxValue), Is.EqualTo(BlkifStatus.Error));
            BlkifRequest secure =
                new() { Operation = BlkifOperation.Discard, SegmentCount = 1, DiscardSectorCount = 8 };
            Assert.That((await disk.SubmitAsync(secure)).Status, Is.EqualTo(BlkifStatus.NotSupported));
            Assert.That(File.ReadAllBytes(image), Has.All.EqualTo((byte)9));
        }
    }

    [TestCase(true, false)]
    [TestCase(false, true)]
    public async Task Discard_is_off_where_it_is_not_wanted(bool isWritable, bool isEnabled)
    {
        string image = MakeImage("a.img");
        File.WriteAllBytes(image, [.. Enumerable.Repeat((byte)9, 8 << 20)]);
        EmulatedGuest guest = await MakeGuestAsync(1);
        await Toolstack.AttachAsync(1, Disk(image, isWritable) with { AllowsDiscard = isEnabled });
        await using Blkfront disk = await ConnectAsync(guest);

        Assert.That(await disk.Connection.BackendNodeAsync("feature-discard"), Is.Null);
        Assert.That(await disk.DiscardAsync(0, 2048), Is.EqualTo(BlkifStatus.NotSupported));
        Assert.That(File.ReadAllBytes(image), Has.All.EqualTo((byte)9));
    }

    [Test]
    public async Task A_barrier_is_a_write_like_others()
    {
        string image = MakeImage("a.img");
        (_, Blkfront disk) = await ConnectAsync(image);
        await using (disk)
        {
            byte[] data = new byte[11 * 4096];
            new Random(6).NextBytes(data);
            Assert.That(await disk.WriteBarrierAsync(64, data), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(
                (await disk.SubmitAsync(new BlkifRequest { Operation = BlkifOperation.WriteBarrier })).Status,
                Is.EqualTo(BlkifStatus.Okay));
            Assert.That(File.ReadAllBytes(image).AsSpan(64 * 512, data.Length).SequenceEqual(data), Is.True);
        }
    }

    [Test]
    public async Task A_disk_with_large_sectors_refuses_unaligned_requests()
    {
        (_, Blkfront disk) = await ConnectAsync(MakeImage("a.img") + "?sector-size=4096");
        await using (disk)
        {
            Assert.That(disk.SectorSize, Is.EqualTo(4096));
            Assert.That(await disk.Connection.BackendNodeAsync("physical-sector-size"), Is.EqualTo("4096"));
            Assert.That(disk.SectorCount, Is.EqualTo((8ul << 20) / 512), "always of 512 bytes");
            Assert.That(await disk.WriteAsync(8, new byte[4096]), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(await disk.WriteAsync(1, new byte[4096]), Is.EqualTo(BlkifStatus.Error));
            Assert.That(await disk.WriteAsync(8, new byte[512]), Is.EqualTo(BlkifStatus.Error));
            Assert.That(await disk.DiscardAsync(4, 8), Is.EqualTo(BlkifStatus.Error));
        }
    }

    [Test]
    public async Task An_idle_disk_is_resized_by_command_and_a_busy_one_by_itself()
    {
        string image = MakeImage("a.img");
        (_, Blkfront disk) = await ConnectAsync(image);
        await using (disk)
        {
            SetLength(image, 16 << 20);
            (int status, string output, _) = await RunAsync("resize", "1", "xvda", "--host", Layout.Root);
            Assert.That((status, output), Is.EqualTo((0, $"guest 1 xvda, {image}: 16.0 MiB\n")));
            Assert.That(await Store.ReadAsync($"{Backend}/sectors"), Is.EqualTo("32768"));
            Assert.That(await Store.ReadAsync($"{Backend}/state"), Is.EqualTo("4"));
            Assert.That(await disk.WriteAsync(32760, new byte[4096]), Is.EqualTo(BlkifStatus.Okay));

            SetLength(image, 4 << 20);
            using CancellationTokenSource limit = new(Soon);
            while (await Store.ReadAsync($"{Backend}/sectors") != "8192")
            {
                limit.Token.ThrowIfCancellationRequested();
                await disk.ReadAsync(0, new byte[512]);
            }

            Assert.That(await disk.WriteAsync(8192, new byte[512]), Is.EqualTo(BlkifStatus.Error));
            Assert.That(new FileInfo(image).Length, Is.EqualTo(4 << 20));
        }
    }

    [TestCase("")]
    [TestCase("qcow2:")]
    public async Task A_disk_in_use_is_made_larger_by_the_daemon_and_smaller_only_when_nobody_uses_it(string scheme)
    {
        string target = $"{scheme}{Scratch}/resized";
        Assert.That((await RunAsync("image", "create", target, "8M")).Status, Is.Zero);
        (_, Blkfront disk) = await ConnectAsync(target);
        await using (disk)
        {
            (int status, string output, _) =
                await RunAsync("resize", "1", "xvda", "--size", "16M", "--host", Layout.Root);
            Assert.That((status, output), Is.EqualTo((0, $"guest 1 xvda, {target}: 16.0 MiB\n")));
            Assert.That(await Store.ReadAsync($"{Backend}/sectors"), Is.EqualTo("32768"));
            Assert.That(await disk.WriteAsync(32760, new byte[4096]), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(
                (await RunAsync("resize", "1", "xvda", "--size", "8M", "--host", Layout.Root)).Errors,
                Does.Contain("a disk in use can only grow"));
            Assert.That(
                (await RunAsync("resize", "--size", "8M", "--host", Layout.Root)).Errors,
                Does.Contain("Give guest and device"));
            Assert.That((await RunAsync("image", "resize", target, "32M")).Errors, Does.Contain("in use"));
            Assert.That(await Store.ReadAsync($"{Backend}/sectors"), Is.EqualTo("32768"));
            await disk.CloseAsync(Soon);
        }

        await Toolstack.DetachAsync(1, Disk(target));
        await AwaitLogAsync("gone");
        Assert.That((await RunAsync("image", "resize", target, "8M")).Errors, Does.Contain("say --shrink"));
        Assert.That(
            (await RunAsync("image", "resize", target, "8M", "--shrink")).Output,
            Is.EqualTo($"{target}: 16.0 MiB before, 8.0 MiB now\n"));
        Assert.That(
            (await RunAsync("image", "resize", target, "+1000")).Errors, Does.Contain("give a multiple of 512"));
        Assert.That(
            (await RunAsync("image", "resize", target, "+4M")).Output,
            Is.EqualTo($"{target}: 8.0 MiB before, 12.0 MiB now\n"));
        Assert.That(
            await RunOtherAsync("qemu-img", "info", $"{Scratch}/resized"), Does.Contain("virtual size: 12 MiB"));
    }

    [Test]
    public async Task Resizing_a_disk_that_is_not_there_says_so()
    {
        (int status, _, string errors) = await RunAsync("resize", "7", "xvdq", "--host", Layout.Root);

        Assert.That(status, Is.EqualTo(1));
        Assert.That(errors, Is.EqualTo("ublkback: there is no such disk: 'ublkback list' shows those there are\n"));
    }

    [Test]
    public async Task A_CD_ROM_says_what_it_is()
    {
        EmulatedGuest guest = await MakeGuestAsync(1);
        await Toolstack.AttachAsync(1, Disk(MakeImage("a.iso"), isWritable: false) with { IsCdRom = true });
        await using Blkfront disk = await ConnectAsync(guest);

        Assert.That(disk.Info, Is.EqualTo(1 | 2 | 4));
    }

    private static void SetLength(string path, long length)
    {
        using FileStream file = new(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
        file.SetLength(length);
    }

    private static async Task<long> BlocksAsync(string path) =>
        long.Parse((await RunOtherAsync("stat", "--format=%b", path))[2..]);
}
