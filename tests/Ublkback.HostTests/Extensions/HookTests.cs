using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Extensions;

/// <summary>Hooks in targets, as a guest and an administrator meet them.</summary>
public sealed class HookTests : HostFixture
{
    [Test]
    public async Task Hooks_of_a_target_interpose_on_a_guests_requests_each_disk_its_own()
    {
        string trace = Path.Combine(Scratch, "a.trace"), key = Path.Combine(Scratch, "key");
        await File.WriteAllBytesAsync(key, [.. Enumerable.Range(1, 64).Select(i => (byte)i)]);
        File.SetUnixFileMode(key, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        string image = MakeImage("a.img", VerifyingLoad.DiskSize), plain = MakeImage("b.img");
        DiskConfiguration configuration = Disk($"trace(file={trace})+crypt(key={key},discard=yes)+{image}");
        EmulatedGuest guest = await MakeGuestAsync(1), other = await MakeGuestAsync(2);
        await Toolstack.AttachAsync(1, configuration);
        await Toolstack.AttachAsync(2, Disk($"fault(op=write,sectors=8-15)+{plain}"));
        await using (Blkfront disk = await ConnectAsync(
            guest, options: new BlkfrontOptions(BlkifAbi.X86_64, 1, Queues: 2)))
        await using (Blkfront faulty = await ConnectAsync(other))
        {
            byte[] data = new byte[4096], read = new byte[4096];
            Random.Shared.NextBytes(data);
            Assert.That(await disk.WriteAsync(0, data), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(await disk.ReadAsync(0, read), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(read, Is.EqualTo(data));
            Assert.That((await File.ReadAllBytesAsync(image))[..4096], Is.Not.EqualTo(data));
            Assert.That(await faulty.WriteAsync(8, data), Is.EqualTo(BlkifStatus.Error));
            Assert.That(await faulty.WriteAsync(16, data), Is.EqualTo(BlkifStatus.Okay));
            await disk.CloseAsync(Soon);
        }

        await Toolstack.DetachAsync(1, configuration);
        string[] lines = await File.ReadAllLinesAsync(trace);
        Assert.That(lines, Has.Exactly(1).Contains("dom1 xvda Write 0+8 Okay"));
        Assert.That(lines[0], Does.EndWith("Connected"));
        Assert.That(lines[^1], Does.EndWith("Closed"));
    }

    [Test]
    public async Task A_successor_goes_on_below_hooks()
    {
        string key = Path.Combine(Scratch, "key");
        await File.WriteAllBytesAsync(key, new byte[32]);
        File.SetUnixFileMode(key, UnixFileMode.UserRead);
        string image = MakeImage("a.img", VerifyingLoad.DiskSize);
        EmulatedGuest guest = await MakeGuestAsync(1);
        await Toolstack.AttachAsync(1, Disk($"crypt(key={key},discard=yes)+delay(time=1ms)+{image}"));
        await using Blkfront disk = await ConnectAsync(guest);
        await disk.DiscardAsync(0, 1);
        await KillDaemonsUnderAsync(disk);

        await disk.CloseAsync(Soon);
    }

    [TestCase("colour", "unknown hook colour")]
    [TestCase("throttle(iops=x)", "hook throttle: iops=x is not a whole number")]
    [TestCase("crypt(key=/nowhere)", "hook crypt: the key /nowhere cannot be read")]
    public async Task A_target_with_a_wrong_hook_is_refused_where_the_user_looks(string hook, string part)
    {
        await MakeGuestAsync(1);
        Assert.That(
            () => Toolstack.AttachAsync(1, Disk($"{hook}+{MakeImage("a.img")}")),
            Throws.TypeOf<ToolstackException>().With.Message.Contains(part));
    }

    [Test]
    public async Task A_throttle_is_changed_while_a_guest_uses_it()
    {
        (_, Blkfront disk) = await ConnectAsync($"throttle(iops=1,burst=0ms)+{MakeImage("a.img")}");
        await using (disk)
        {
            (int status, string output, _) =
                await RunAsync("change", "--host", Layout.Root, "1", "xvda", "throttle(iops=0)");
            Assert.That(status, Is.Zero);
            Assert.That(output, Does.Contain("throttle(iops=0)"));
            Task<BlkifStatus>[] writes = [
                .. Enumerable.Range(0, 100).Select(i => disk.WriteAsync((ulong)i, new byte[512]))];
            Assert.That(await Task.WhenAll(writes).WaitAsync(Soon), Is.All.EqualTo(BlkifStatus.Okay));

            (status, _, string errors) = await RunAsync("change", "--host", Layout.Root, "1", "xvda", "delay(time=1s)");
            Assert.That(status, Is.EqualTo(1));
            Assert.That(errors, Does.Contain("the disk has no hook delay, but throttle"));
        }
    }

    [Test]
    public async Task A_watchpoint_holds_a_request_until_it_is_resumed()
    {
        (_, Blkfront disk) = await ConnectAsync($"watch(op=write,pattern=deadbeef,action=hold)+{MakeImage("a.img")}");
        await using (disk)
        {
            byte[] data = new byte[4096];
            Assert.That(await disk.WriteAsync(0, data).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
            (data[1000], data[1001], data[1002], data[1003]) = (0xde, 0xad, 0xbe, 0xef);
            Task<BlkifStatus> held = disk.WriteAsync(8, data);
            await AwaitLogAsync("watchpoint: Write of 8 sectors at 8 is held");
            (_, string list, _) = await RunAsync("list", "--host", Layout.Root);
            Assert.That(list, Does.Contain("held: 1 request(s) by a watchpoint"));
            Assert.That(
                await disk.WriteAsync(16, new byte[512]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay), "others go on");
            Assert.That(held.IsCompleted, Is.False);
            await RunAsync("resume", "--host", Layout.Root, "1", "xvda");
            Assert.That(await held.WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
        }
    }

    // Discards leave no zeros below encryption, so the load is writes and reads alone.
}
