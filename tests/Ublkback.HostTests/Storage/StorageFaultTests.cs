using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Storage;

/// <summary>Storage that fails, is full, stalls or vanishes. The faults are made by QEMU and by the kernel.</summary>
public sealed class StorageFaultTests : HostFixture
{
    private const ulong BadSector = 80;

    private static readonly string BackendPath = $"/local/domain/0/backend/vbd/1/{Xvda}";

    private StorageDaemon? _exporter;

    [TearDown]
    public async Task StopExporter()
    {
        if (_exporter is null) return;
        await SignalAsync(_exporter.Process, "CONT");
        await _exporter.DisposeAsync();
    }

    [Test]
    public async Task An_error_of_the_storage_is_told_to_the_guest_for_exactly_that_request(
        [Values("read", "write", "flush")] string operation)
    {
        string blkdebug = operation == "flush"
            ? "inject-error.0.iotype=flush"
            : $"inject-error.0.iotype={operation},inject-error.0.sector={BadSector}";
        (_, Blkfront disk) = await ConnectAsync(await ExportAsync(blkdebug));
        await using (disk)
        {
            for (ulong sector = 0; sector < 160; sector += 8)
            {
                BlkifStatus status = operation == "read" // of what is in no cache
                    ? await disk.ReadAsync(sector, new byte[4096])
                    : await disk.WriteAsync(sector, new byte[4096]);
                Assert.That(
                    status, Is.EqualTo(Expected(sector == BadSector && operation != "flush")),
                    $"{operation} at {sector}");
            }

            Assert.That(await disk.FlushAsync(), Is.EqualTo(Expected(operation == "flush")));
            await AwaitLogAsync("Input/output error");
        }

        static BlkifStatus Expected(bool fails) => fails ? BlkifStatus.Error : BlkifStatus.Okay;
    }

    [Test]
    public async Task A_flush_that_failed_is_no_success_for_a_successor_either()
    {
        (_, Blkfront disk) =
            await ConnectAsync(await ExportAsync("inject-error.0.iotype=flush,inject-error.0.once=on"));
        await using (disk)
        {
            Assert.That(await disk.WriteAsync(0, new byte[4096]), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(await disk.FlushAsync().WaitAsync(Soon), Is.EqualTo(BlkifStatus.Error));
            await KillAsync();
            Daemon = StartDaemon();
            Assert.That(await disk.WriteAsync(0, new byte[4096]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(
                await disk.FlushAsync().WaitAsync(Soon), Is.EqualTo(BlkifStatus.Error),
                "the kernel tells of a loss once");
        }
    }

    [Test]
    public async Task A_full_storage_holds_requests_until_there_is_room()
    {
        string directory = await MountSmallAsync("2M");
        try
        {
            string image = Path.Combine(directory, "a.img");
            using (FileStream file = File.Create(image)) file.SetLength(1 << 20);
            await File.WriteAllBytesAsync(Path.Combine(directory, "other"), new byte[1800 << 10]);
            (_, Blkfront disk) = await ConnectAsync($"raw:{image}?on-error=hold");
            await using (disk)
            {
                byte[] data = [.. Enumerable.Repeat((byte)7, 1 << 20)];
                Task<BlkifStatus> write = disk.WriteAsync(0, data);
                await AwaitLogAsync("the storage is full");
                Assert.That((await VbdAsync("list")).GetProperty("trouble").GetString(), Is.EqualTo("held: NoSpace"));
                Assert.That(
                    await disk.ReadAsync(0, new byte[512]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay),
                    "others go on");
                Assert.That((await RunAsync("resume", "--host", Layout.Root)).Status, Is.Zero);
                Assert.That(write.IsCompleted, Is.False, "there is no room yet");

                // A daemon that is replaced keeps them too.
                await StopDaemonAsync();
                Daemon = await StartDaemonAsync();
                await AwaitLogAsync("taken over");
                Assert.That(write.IsCompleted, Is.False);

                File.Delete(Path.Combine(directory, "other"));
                (int status, string output, _) = await RunAsync("resume", "1", "xvda", "--host", Layout.Root);
                Assert.That((status, output), Is.EqualTo((0, output)));
                Assert.That(output, Does.StartWith("guest 1 xvda"));
                Assert.That(await write.WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
                byte[] read = new byte[1 << 20];
                Assert.That(await disk.ReadAsync(0, read), Is.EqualTo(BlkifStatus.Okay));
                Assert.That(read, Is.EqualTo(data));
                Assert.That((await VbdAsync("list")).TryGetProperty("trouble", out _), Is.False);
                await disk.CloseAsync(Soon);
            }
        }
        finally
        {
            await RunOtherAsync("umount", "-l", directory);
        }
    }

    [Test]
    public async Task Held_requests_fail_when_the_guest_lets_go_of_the_disk()
    {
        string export = await ExportAsync($"inject-error.0.iotype=write,inject-error.0.sector={BadSector}");
        (_, Blkfront disk) = await ConnectAsync($"raw:{export}?on-error=hold");
        await using (disk)
        {
            Task<BlkifStatus> write = disk.WriteAsync(BadSector, new byte[4096]);
            await AwaitLogAsync("the storage failed");
            await Store.WriteAsync($"{FrontendConnection.FrontendPath(1, Xvda)}/state", "5");
            await Store.WriteAsync($"{FrontendConnection.FrontendPath(1, Xvda)}/state", "6");
            Assert.That(await write.WaitAsync(Soon), Is.EqualTo(BlkifStatus.Error));
            await FrontendConnection.WaitForStateAsync(Store, BackendPath, Soon, "6");
        }
    }

    [Test]
    public async Task A_stalled_storage_holds_up_nobody_else_and_lets_its_disk_go()
    {
        string stalled = await ExportAsync("inject-error.0.iotype=read,inject-error.0.sector=1");
        DiskConfiguration configuration = Disk(stalled);
        EmulatedGuest guest = await MakeGuestAsync(1);
        await Toolstack.AttachAsync(1, configuration);
        await using Blkfront disk = await ConnectAsync(
            guest, options: new BlkfrontOptions(BlkifAbi.X86_64, 4, MaxSegments: 256));
        await Toolstack.AttachAsync(1, Disk(MakeImage("b.img", VerifyingLoad.DiskSize), deviceId: 51728));
        await using Blkfront neighbour = await ConnectAsync(
            guest, 51728, new BlkfrontOptions(BlkifAbi.X86_64, Queues: 2));
        VerifyingLoad load = new(neighbour);
        await SignalAsync(_exporter!.Process, "STOP");
        Task<BlkifStatus>[] stuck = [.. Enumerable.Range(0, 100).Select(_ => disk.WriteAsync(0, new byte[1 << 20]))];

        await load.ProgressAsync(2000, Soon);
        (_, string stats, _) = await RunAsync("stats", "--host", Layout.Root);
        Assert.That(stats, Does.Match(@"xvda, .*: [1-9][0-9]* in flight \(the oldest for [0-9.]+ (s|ms)\)"));
        await Toolstack.DetachAsync(1, configuration, force: true).WaitAsync(ForcedDetach);
        await load.ProgressAsync(2000, Soon);
        Assert.That(stuck.All(task => !task.IsCompletedSuccessfully), Is.True, "nobody knows how they end");

        await SignalAsync(_exporter!.Process, "CONT");
        await load.StopAsync(Soon);
        // Its lock is free again when the last I/O has ended.
        await Toolstack.AttachAsync(1, Disk(stalled, deviceId: 51744));
    }

    [Test]
    public async Task A_daemon_that_dies_while_a_script_waits_for_it_is_answered_for_by_the_next()
    {
        string stalled = await ExportAsync("inject-error.0.iotype=read,inject-error.0.sector=1");
        EmulatedGuest guest = await MakeGuestAsync(1);
        await SignalAsync(_exporter!.Process, "STOP");
        Task attaching = Toolstack.AttachAsync(1, Disk(stalled));
        while (CountConversations() == 0) await Task.Delay(10); // the script has not asked yet
        await KillAsync();
        Assert.That(attaching.IsCompleted, Is.False);

        await SignalAsync(_exporter!.Process, "CONT");
        Daemon = StartDaemon();
        await attaching.WaitAsync(Soon);
        await using Blkfront disk = await ConnectAsync(guest);
        Assert.That(await disk.WriteAsync(0, new byte[4096]), Is.EqualTo(BlkifStatus.Okay));

        // By the kernel's account, in which the socket that listens is one more.
        int CountConversations() => File.ReadLines("/proc/net/unix").Count(
            line => line.EndsWith(Path.Combine(Layout.RunDirectory, "control.sock"), StringComparison.Ordinal)) - 1;
    }

    [Test]
    public async Task A_file_that_is_deleted_is_served_on()
    {
        string image = MakeImage("a.img");
        (_, Blkfront disk) = await ConnectAsync(image);
        await using (disk)
        {
            File.Delete(image);
            byte[] data = [.. Enumerable.Repeat((byte)7, 4096)];
            Assert.That(await disk.WriteAsync(8, data), Is.EqualTo(BlkifStatus.Okay));
            byte[] read = new byte[4096];
            Assert.That(await disk.ReadAsync(8, read), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(read, Is.EqualTo(data));
        }
    }

    // A file whose errors QEMU makes.
    private async Task<string> ExportAsync(string errors)
    {
        _exporter = await StorageDaemon.StartAsync(
            Scratch, Soon,
            $"driver=file,node-name=file,filename={MakeImage("storage.raw")}",
            $"driver=blkdebug,node-name=top,image=file,inject-error.0.event=none,inject-error.0.errno=5,{errors}");
        return _exporter.Path;
    }
}
