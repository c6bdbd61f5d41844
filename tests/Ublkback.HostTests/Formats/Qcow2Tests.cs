using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Formats;

/// <summary>Guests whose disks are qcow2 images.</summary>
public sealed class Qcow2Tests : HostFixture
{
    // libxl runs the script after state 6, which a guest that shuts down reaches before the toolstack detaches.
    [Test]
    public async Task An_image_is_free_when_the_script_has_returned([Values] bool guestClosesFirst)
    {
        string image = Path.Combine(Scratch, "a.qcow2");
        await RunOtherAsync("qemu-img", "create", "-f", "qcow2", image, "64M");
        EmulatedGuest guest = await MakeGuestAsync(1);
        for (int round = 0; round < 10; round++)
        {
            DiskConfiguration configuration = Disk($"qcow2:{image}");
            await Toolstack.AttachAsync(1, configuration);
            await using Blkfront disk = await ConnectAsync(guest);
            for (ulong sector = 0; sector < 32; sector++)
                Assert.That(await disk.WriteAsync(sector * 4096, new byte[512]), Is.EqualTo(BlkifStatus.Okay));
            Task detaching = guestClosesFirst ? Task.CompletedTask : Toolstack.DetachAsync(1, configuration);
            await disk.CloseAsync(Soon);
            if (guestClosesFirst) detaching = Toolstack.DetachAsync(1, configuration);
            await detaching;
            Assert.That(await RunOtherAsync("qemu-img", "check", image), Does.StartWith("0:"));
        }
    }

    private const int Kills = 8;

    [TestCase("cluster_size=4k")]
    [TestCase("cluster_size=4k,compat=0.10")]
    public async Task A_guest_on_an_overlay_notices_neither_kills_nor_upgrades(string options)
    {
        int seed = Environment.TickCount;
        TestContext.Out.WriteLine($"seed {seed}");
        Random random = new(seed);
        // Version 2 cannot hide what is below, so there is nothing below.
        string[] backing = options.Contains("compat", StringComparison.Ordinal)
            ? []
            : ["-b", MakeImage("golden.img", VerifyingLoad.DiskSize), "-F", "raw"];
        string overlay = Path.Combine(Scratch, "over.qcow2");
        await MakeAsync(overlay, ["-o", options, .. backing]);
        (_, Blkfront disk) = await ConnectAsync($"qcow2:{overlay}?backing=allow",
            new BlkfrontOptions(BlkifAbi.X86_64, 2, Queues: 2, IsPersistent: true, MaxSegments: 32));
        await using (disk)
        {
            VerifyingLoad load = new(disk);
            await load.ProgressAsync(100, Soon);
            for (int kill = 0; kill < Kills; kill++)
            {
                await Task.Delay(random.Next(random.Next(2) == 0 ? 50 : 400));
                if (kill % 4 == 3) await StopDaemonAsync();
                else await KillAsync();
                Daemon = StartDaemon();
                if (random.Next(2) == 0) await load.ProgressAsync(random.Next(300), Soon);
            }

            await load.ProgressAsync(100, Soon);
            await load.StopAsync(Soon);
            await disk.CloseAsync(Soon);
        }

        await Toolstack.DetachAsync(1, Disk($"qcow2:{overlay}?backing=allow"));
        await AwaitLogAsync("gone");
        Assert.That(Directory.EnumerateFiles(Path.Combine(Layout.RunDirectory, "journal")), Is.Empty);
        string check = await RunOtherAsync("qemu-img", "check", overlay);
        Assert.That(
            check, Does.StartWith("0:").Or.StartsWith("3:"),
            "kills leave clusters that are counted too often, at worst");
        (int status, string said, _) = await RunAsync("image", "check", $"qcow2:{overlay}", "--repair");
        Assert.That(status, Is.Zero, said);
        Assert.That(await RunOtherAsync("qemu-img", "check", overlay), Does.StartWith("0:"));
    }

    [Test]
    public async Task Two_guests_share_what_is_below_and_see_only_their_own_changes()
    {
        byte[] below = new byte[4 << 20];
        new Random(1).NextBytes(below);
        string golden = Path.Combine(Scratch, "golden.img");
        await File.WriteAllBytesAsync(golden, below);
        byte[] read = new byte[64 << 10];
        List<Blkfront> disks = [];
        for (int domid = 1; domid <= 2; domid++)
        {
            string overlay = Path.Combine(Scratch, $"over{domid}.qcow2");
            (int status, _, string errors) = await RunAsync("image", "create", $"qcow2:{overlay}", "--backing", golden);
            Assert.That(status, Is.Zero, errors);
            EmulatedGuest guest = await MakeGuestAsync(domid);
            await Toolstack.AttachAsync(domid, Disk($"qcow2:{overlay}?backing={Scratch}"));
            disks.Add(await ConnectAsync(guest));
            Assert.That(
                await disks[^1].WriteAsync(8, Enumerable.Repeat((byte)domid, 4096).ToArray()),
                Is.EqualTo(BlkifStatus.Okay));
        }

        for (int domid = 1; domid <= 2; domid++)
        {
            Assert.That(await disks[domid - 1].ReadAsync(0, read), Is.EqualTo(BlkifStatus.Okay));
            byte[] expected = below[..read.Length];
            expected.AsSpan(4096, 4096).Fill((byte)domid);
            Assert.That(read, Is.EqualTo(expected));
            await disks[domid - 1].DisposeAsync();
        }

        Assert.That(await File.ReadAllBytesAsync(golden), Is.EqualTo(below));
    }

    [Test]
    public async Task Commands_lose_nothing_that_a_killed_daemon_had_answered()
    {
        string image = Path.Combine(Scratch, "a.qcow2"), copy = Path.Combine(Scratch, "copy.img");
        await MakeAsync(image, []);
        (_, Blkfront disk) = await ConnectAsync($"qcow2:{image}",
            new BlkfrontOptions(BlkifAbi.X86_64, 0, Queues: 1, IsPersistent: true, MaxSegments: 11));
        Assert.That(await disk.WriteAsync(0, Enumerable.Repeat((byte)7, 4096).ToArray()), Is.EqualTo(BlkifStatus.Okay));
        await KillAsync();
        await disk.DisposeAsync();

        foreach (string[] reading in new string[][] { ["image", "check", $"qcow2:{image}"],
            ["image", "map", $"qcow2:{image}"], ["image", "convert", $"qcow2:{image}", copy] })
        {
            (int status, _, string errors) = await RunAsync(reading);
            Assert.That((status, errors), Is.EqualTo((1, errors)));
            Assert.That(errors, Does.Contain("killed daemon").And.Contain("--repair"));
        }

        (int repaired, string output, string said) = await RunAsync("image", "check", $"qcow2:{image}", "--repair");
        Assert.That((repaired, said), Is.EqualTo((0, "")));
        Assert.That(output, Does.Contain("were brought into the file").And.Contain("it is in order"));
        Assert.That(
            await RunOtherAsync("qemu-io", "-r", "-c", "read -P 7 0 4k", image),
            Does.StartWith("0:").And.Not.Contain("verification failed"));
        Assert.That(Directory.EnumerateFiles(Path.Combine(Layout.RunDirectory, "journal"), "*.qcow2-log"), Is.Empty);
        Assert.That((await RunAsync("image", "convert", $"qcow2:{image}", copy)).Status, Is.Zero);
    }

    [Test]
    public async Task The_toolstack_is_told_what_is_wrong_with_an_image()
    {
        await MakeAsync(
            Path.Combine(Scratch, "over.qcow2"), ["-b", MakeImage("golden.img", VerifyingLoad.DiskSize), "-F", "raw"]);
        await MakeGuestAsync(1);
        Assert.That(
            async () => await Toolstack.AttachAsync(1, Disk($"qcow2:{Scratch}/over.qcow2")),
            Throws.TypeOf<ToolstackException>().With.Message.Contains("add ?backing=allow to the target"));
        Assert.That(
            async () => await Toolstack.AttachAsync(1, Disk($"qcow2:{Scratch}/golden.img", deviceId: Xvda + 16)),
            Throws.TypeOf<ToolstackException>().With.Message.Contains("is no qcow2 image"));
    }

    [Test]
    public async Task Images_are_made_checked_and_converted_by_commands()
    {
        byte[] content = new byte[8 << 20];
        new Random(2).NextBytes(content.AsSpan(1 << 20, 2 << 20));
        string raw = Path.Combine(Scratch, "a.img"), packed = Path.Combine(Scratch, "a.qcow2");
        await File.WriteAllBytesAsync(raw, content);

        Assert.That((await RunAsync("image", "convert", raw, $"qcow2:{packed}")).Status, Is.Zero);
        Assert.That(
            await RunOtherAsync("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, packed), Does.StartWith("0:"));
        Assert.That(new FileInfo(packed).Length, Is.LessThan(3 << 20), "zeros are left out");
        Assert.That((await RunAsync("image", "check", $"qcow2:{packed}")).Output, Does.Contain("it is in order"));
        Assert.That((await RunAsync("image", "info", $"qcow2:{packed}")).Output, Does.Contain("disk: 8.0 MiB"));

        content[1 << 20]++;
        await File.WriteAllBytesAsync(raw, content);
        Assert.That(
            (await RunAsync("image", "convert", raw, $"qcow2:{packed}", "--compare")).Output,
            Does.Contain("8.0 MiB compared, 4.0 KiB differed"));
        Assert.That(
            (await RunAsync("image", "convert", raw, $"qcow2:{packed}", "--compare")).Output,
            Does.Contain("0 B differed"));
        Assert.That(
            (await RunAsync("image", "convert", raw, $"qcow2:{packed}")).Errors,
            Does.Contain("exists: remove it first"));
        Assert.That(
            (await RunAsync("image", "create", $"qcow2:{Scratch}/b.qcow2")).Errors,
            Does.Contain("Give a size, such as 20G"));
        Assert.That((await RunAsync(
            "image", "create", $"qcow2:{Scratch}/b.qcow2", "1G", "--cluster-size", "3K")).Errors,
            Does.Contain("power of two from 4K to 2M"));
        Assert.That(File.Exists(Path.Combine(Scratch, "b.qcow2")), Is.False);
    }

    [Test]
    public async Task A_map_is_as_QEMU_has_it_and_a_commit_makes_what_is_below_the_same()
    {
        string below = Path.Combine(Scratch, "below.qcow2"), over = Path.Combine(Scratch, "over.qcow2"),
            flat = Path.Combine(Scratch, "flat.img");
        await MakeAsync(below, []);
        await RunOtherAsync(
            "qemu-io", "-c", "write -P 1 0 1M", "-c", "write -P 2 3M 64k", "-c", "write -z 5M 1M", below);
        await MakeAsync(over, ["-b", below, "-F", "qcow2"]);
        await RunOtherAsync(
            "qemu-io", "-c", "write -P 3 512k 1M", "-c", "write -z 3M 64k", "-c", "write -P 4 8M 4k", over);

        (int status, string own, string errors) = await RunAsync(
            "image", "map", $"qcow2:{over}?backing={Scratch}", "--json");
        Assert.That(status, Is.Zero, errors);
        Assert.That(
            Ranges(own), Is.EqualTo(Ranges((await RunOtherAsync("qemu-img", "map", "--output=json", over))[2..])));

        Assert.That((await RunAsync("image", "convert", $"qcow2:{over}?backing=allow", flat)).Status, Is.Zero);
        foreach (string command in new[] { "map", "commit" })
        {
            (status, _, errors) = await RunAsync("image", command, $"qcow2:{over}");
            Assert.That((status, errors), Is.EqualTo((1, errors)));
            Assert.That(errors, Does.Contain("add ?backing=allow"));
        }

        (status, own, errors) = await RunAsync("image", "commit", $"qcow2:{over}?backing=allow");
        Assert.That(status, Is.Zero, errors);
        Assert.That(own, Does.StartWith("1.1 MiB committed"), "what only the overlay has");
        Assert.That(
            await RunOtherAsync("qemu-img", "compare", "-f", "raw", "-F", "qcow2", flat, below), Does.StartWith("0:"));
        Assert.That(await RunOtherAsync("qemu-img", "check", below), Does.StartWith("0:"));
    }

    [Test]
    public async Task Holes_of_a_raw_image_are_not_read_when_it_is_converted()
    {
        const long Size = 4L << 40; // to read that much would take an hour
        string raw = Path.Combine(Scratch, "sparse.img"), copy = Path.Combine(Scratch, "copy.qcow2");
        using (FileStream file = File.Create(raw))
        {
            file.SetLength(Size);
            file.Position = Size / 2;
            file.Write([1, 2, 3]);
        }

        (int status, string own, _) = await RunAsync("image", "map", raw, "--json");
        Assert.That(status, Is.Zero);
        Assert.That(
            Ranges(own),
            Is.EqualTo(Ranges((await RunOtherAsync("qemu-img", "map", "-f", "raw", "--output=json", raw))[2..])));
        (status, own, _) = await RunAsync("image", "convert", raw, $"qcow2:{copy}");
        Assert.That((status, own), Is.EqualTo((0, "4.0 TiB copied, 4.0 KiB written\n")));
        Assert.That(
            await RunOtherAsync("qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, copy), Does.StartWith("0:"));
    }

    private static string[] Ranges(string json) =>
    [
        .. System.Text.Json.JsonDocument.Parse(json).RootElement.EnumerateArray().Select(entry => string.Join(
            ' ', new[] { "start", "length", "depth", "present", "zero", "data", "offset" }.Select(name =>
                entry.TryGetProperty(name, out System.Text.Json.JsonElement value)
                    && value.ValueKind != System.Text.Json.JsonValueKind.Null ? $"{name} {value}" : ""))),
    ];

    private static async Task MakeAsync(string path, string[] options) =>
        Assert.That(await RunOtherAsync(
            "qemu-img", ["create", "-q", "-f", "qcow2", .. options, path, $"{VerifyingLoad.DiskSize}"]),
            Does.StartWith("0:"));
}
