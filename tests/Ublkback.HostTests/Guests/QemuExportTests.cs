using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Guests;

/// <summary>
/// The NBD exports of HVM guests' disks for QEMU. QEMU's own tool opens the path that libxl would pass to QEMU.
/// </summary>
public sealed class QemuExportTests : HostFixture
{
    [TestCase("vbd", "")]
    [TestCase("vbd", "qcow2:")]
    [TestCase("vbd3", "trace(file=/dev/null)+qcow2:")]
    public async Task QEMU_and_the_guest_see_one_disk_also_after_a_kill(string kind, string scheme)
    {
        string image = Path.Combine(Scratch, "boot"), target = scheme + image;
        Assert.That((await RunAsync(
            "image", "create", scheme.EndsWith("qcow2:", StringComparison.Ordinal) ? $"qcow2:{image}" : image,
            "8M")).Status, Is.Zero);
        DiskConfiguration disk = Disk(target, kind: kind);
        EmulatedGuest guest = await AttachToHvmAsync(disk);
        string place = await PlaceAsync(disk);
        Assert.That(await QemuAsync(place, "write -P 5 4k 8k", "flush"), Does.StartWith("0:"));

        await KillAsync();
        Daemon = await StartDaemonAsync();
        await AwaitLogAsync("opened");
        byte[] read = new byte[8192];
        await using (Blkfront front = await ConnectAsync(guest))
        {
            Assert.That(await front.ReadAsync(8, read), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(read.All(value => value == 5), Is.True, "what QEMU wrote");
            Assert.That(
                await front.WriteAsync(16, Enumerable.Repeat((byte)6, 4096).ToArray()), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(
                await QemuAsync(place, "read -P 5 4k 4k", "read -P 6 8k 4k"),
                Does.StartWith("0:").And.Not.Contain("failed"), "what the guest wrote");
            await front.CloseAsync(Soon);
        }

        await Toolstack.DetachAsync(1, disk);
        await AwaitLogAsync("gone");
        Assert.That(Directory.EnumerateFileSystemEntries(Path.Combine(Layout.RunDirectory, "qemu")), Is.Empty);
        Assert.That(DescriptorsOf(Daemon), Has.None.EqualTo(image));
    }

    [Test]
    public async Task QEMU_may_only_read_a_disk_that_its_guest_may_only_read()
    {
        DiskConfiguration disk = Disk(MakeImage("cd.iso"), isWritable: false);
        await AttachToHvmAsync(disk);
        string place = await PlaceAsync(disk);
        Assert.That(await QemuAsync(place, "write 0 4k"), Does.Not.StartWith("0:"));
        Assert.That(
            await RunOtherAsync("qemu-io", "-r", "-f", "raw", "-c", "read -P 0 0 4k", place),
            Does.StartWith("0:").And.Not.Contain("failed"));
    }

    [Test]
    public async Task A_guest_without_emulated_disks_gets_no_QEMU_export()
    {
        (_, Blkfront disk) = await ConnectAsync(MakeImage("a.img"));
        await disk.DisposeAsync();
        Assert.That(await Store.ReadAsync($"{Toolstack.BackendPath(1, Disk(""))}/physical-device-path"), Is.Null);
        Assert.That(Directory.Exists(Path.Combine(Layout.RunDirectory, "qemu")), Is.False);
    }

    private async Task<EmulatedGuest> AttachToHvmAsync(DiskConfiguration disk)
    {
        EmulatedGuest guest = await MakeGuestAsync(1);
        await Store.WriteAsync("/libxl/1/type", "hvm");
        await Toolstack.AttachAsync(1, disk);
        return guest;
    }

    private async Task<string> PlaceAsync(DiskConfiguration disk)
    {
        string path = (await Store.ReadAsync($"{Toolstack.BackendPath(1, disk)}/physical-device-path"))!;
        string socket = path.Split("socket=")[^1];
        return disk.Kind == "vbd3"
            ? $"nbd+unix:///?socket={path}"
            : File.Exists(socket) ? path : throw new FileNotFoundException(socket);
    }

    private static Task<string> QemuAsync(string place, params string[] commands) =>
        RunOtherAsync("qemu-io", ["-f", "raw", .. commands.SelectMany(command => new[] { "-c", command }), place]);
}
