using System.Globalization;
using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Storage;

/// <summary>
/// Daemons that are killed, at any moment and at every step of the journal: guests see a pause, not an error.
/// </summary>
public sealed class CrashTests : HostFixture
{
    private static readonly string BackendPath = $"/local/domain/0/backend/vbd/1/{Xvda}";

    private static IEnumerable<TestCaseData> Frontends()
    {
        yield return new TestCaseData(new BlkfrontOptions(BlkifAbi.X86_64, 1)).SetArgDisplayNames("one queue, copied");
        yield return new TestCaseData(
            new BlkfrontOptions(BlkifAbi.X86_64, 2, Queues: 2, IsPersistent: true, MaxSegments: 32))
            .SetArgDisplayNames("two queues, persistent, indirect");
    }

    private static IEnumerable<string> ServingPoints() =>
        ["Take", "Taken", "Answer", "Answered", "Put", "Intended", "Shown", "Published"];

    // Kills of each random test; more for a thorough run.
    private static int Kills { get; } =
        int.Parse(Environment.GetEnvironmentVariable("UBLKBACK_KILLS") ?? "15", CultureInfo.InvariantCulture);

    [TestCaseSource(nameof(Frontends))]
    public async Task A_guest_notices_no_kill_at_any_moment(BlkfrontOptions options)
    {
        int seed = Environment.TickCount;
        TestContext.Out.WriteLine($"seed {seed}");
        Random random = new(seed);
        (_, Blkfront disk) = await ConnectAsync(MakeImage("a.img", VerifyingLoad.DiskSize), options);
        await using (disk)
        {
            VerifyingLoad load = new(disk);
            await load.ProgressAsync(100, Soon);
            for (int kill = 0; kill < Kills; kill++)
            {
                // Some while it starts and attaches, some while it serves.
                await Task.Delay(random.Next(random.Next(2) == 0 ? 50 : 600));
                await KillAsync();
                Daemon = StartDaemon();
                if (random.Next(2) == 0) await load.ProgressAsync(random.Next(500), Soon);
            }

            await load.ProgressAsync(100, Soon);
            await load.StopAsync(Soon);
            TestContext.Out.WriteLine(
                $"{Kills} kills, {load.Requests} requests, longest pause {load.LongestPause.TotalMilliseconds:F0} ms");
            Assert.That(await Store.ReadAsync($"{BackendPath}/state"), Is.EqualTo("4"));
            await disk.CloseAsync(Soon);
        }

        Assert.That(Directory.EnumerateFiles(Path.Combine(Layout.RunDirectory, "journal")), Is.Empty);
    }

    [Test]
    public async Task A_guest_notices_no_death_at_any_step(
        [ValueSource(nameof(ServingPoints))] string point, [Values(1, 50)] int time)
    {
        await StopDaemonAsync();
        Daemon = StartDaemon(environment: new() { ["UBLKBACK_KILL_AT"] = $"{point}:{time}" });
        // A ring that is full most of the time, so that what is published wrongly meets requests.
        (_, Blkfront disk) = await ConnectAsync(
            MakeImage("a.img", VerifyingLoad.DiskSize), new BlkfrontOptions(BlkifAbi.X86_64));
        await using (disk)
        {
            VerifyingLoad load = new(disk);
            await Daemon.WaitForExitAsync().WaitAsync(Soon);
            await ServedToTheEndAsync(load, disk);
        }
    }

    [Test]
    public async Task A_guest_notices_no_death_of_a_successor(
        [Values("Recover", "Retake", "Put", "Served", "Connected")] string point)
    {
        (_, Blkfront disk) = await ConnectAsync(
            MakeImage("a.img", VerifyingLoad.DiskSize),
            new BlkfrontOptions(BlkifAbi.X86_64, 1, Queues: 2, IsPersistent: true));
        await using (disk)
        {
            VerifyingLoad load = new(disk);
            await load.ProgressAsync(100, Soon);
            await KillAsync();
            for (int i = 0; i < 2; i++)
            {
                Daemon = StartDaemon(environment: new() { ["UBLKBACK_KILL_AT"] = $"{point}:1" });
                await Daemon.WaitForExitAsync().WaitAsync(Soon);
            }

            await ServedToTheEndAsync(load, disk);
        }
    }

    [Test]
    public async Task A_death_while_it_connects_ends_connected(
        [Values("JournalMade", "Served", "Connected")] string point)
    {
        await StopDaemonAsync();
        Daemon = StartDaemon(environment: new() { ["UBLKBACK_KILL_AT"] = $"{point}:1" });
        EmulatedGuest guest = await MakeGuestAsync(1);
        await Toolstack.AttachAsync(1, Disk(MakeImage("a.img")));
        Task<Blkfront> connecting = ConnectAsync(guest);
        await Daemon.WaitForExitAsync().WaitAsync(Soon);
        Daemon = StartDaemon();

        await using Blkfront disk = await connecting;
        Assert.That(await disk.WriteAsync(0, new byte[512]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
        await disk.CloseAsync(Soon);
    }

    [Test]
    public async Task A_death_while_it_closes_ends_closed()
    {
        await StopDaemonAsync();
        Daemon = StartDaemon(environment: new() { ["UBLKBACK_KILL_AT"] = "Disconnected:1" });
        DiskConfiguration closed = Disk(MakeImage("a.img"));
        EmulatedGuest guest = await MakeGuestAsync(1);
        await Toolstack.AttachAsync(1, closed);
        await using Blkfront disk = await ConnectAsync(guest);
        Assert.That(await disk.WriteAsync(0, new byte[512]), Is.EqualTo(BlkifStatus.Okay));
        Task closing = disk.CloseAsync(Soon);
        await Daemon.WaitForExitAsync().WaitAsync(Soon);
        Daemon = StartDaemon();

        await closing;
        Assert.That(await Store.ReadAsync($"{BackendPath}/state"), Is.EqualTo("6"));
        await Toolstack.DetachAsync(1, closed);
    }

    [Test]
    public async Task A_guest_that_lets_go_meanwhile_gets_its_answers_first([Values] bool isDetached)
    {
        (_, Blkfront disk) = await ConnectAsync(MakeImage("a.img"));
        await using (disk)
        {
            Assert.That(await disk.WriteAsync(0, new byte[512]), Is.EqualTo(BlkifStatus.Okay));
            await KillAsync();
            Task<BlkifStatus>[] writes = [
                .. Enumerable.Range(0, 20).Select(i => disk.WriteAsync((ulong)i * 8, new byte[4096]))];
            if (isDetached)
            {
                await Store.WriteAsync($"{BackendPath}/online", "0");
                await Store.WriteAsync($"{BackendPath}/state", "5");
            }

            await Store.WriteAsync($"{FrontendConnection.FrontendPath(1, Xvda)}/state", "5");
            Daemon = StartDaemon();
            Assert.That(await Task.WhenAll(writes).WaitAsync(Soon), Is.All.EqualTo(BlkifStatus.Okay));
            await disk.CloseAsync(Soon);
        }
    }

    [Test]
    public async Task A_guest_that_left_meanwhile_is_forgotten()
    {
        (_, Blkfront disk) = await ConnectAsync(MakeImage("a.img"));
        await using (disk)
        {
            Assert.That(await disk.WriteAsync(0, new byte[512]), Is.EqualTo(BlkifStatus.Okay));
            await KillAsync();
            await Store.RemoveAsync(FrontendConnection.FrontendPath(1, Xvda));
            Daemon = await StartDaemonAsync();
            await FrontendConnection.WaitForStateAsync(Store, BackendPath, Soon, "6");
            Assert.That(Directory.EnumerateFiles(Path.Combine(Layout.RunDirectory, "journal")), Is.Empty);
        }
    }

    [Test]
    public async Task Another_file_in_the_place_of_the_image_is_not_served()
    {
        string path = MakeImage("a.img");
        (_, Blkfront disk) = await ConnectAsync(path);
        await using (disk)
        {
            byte[] data = [.. Enumerable.Repeat((byte)7, 4096)];
            Assert.That(await disk.WriteAsync(0, data), Is.EqualTo(BlkifStatus.Okay));
            await KillAsync();
            File.Move(path, path + ".kept");
            MakeImage("a.img");
            Daemon = StartDaemon();
            await AwaitLogAsync("its image is another one now");
            Task<BlkifStatus> read = disk.ReadAsync(0, data);
            Assert.That(
                await Store.ReadAsync($"{BackendPath}/state"), Is.EqualTo("4"), "closing would kill the guest's disk");

            await KillAsync();
            File.Move(path + ".kept", path, overwrite: true);
            Daemon = StartDaemon();
            Assert.That(await read.WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(data, Is.All.EqualTo(7));
        }
    }

    [Test]
    public async Task An_image_that_is_missing_is_waited_for()
    {
        string path = MakeImage("a.img");
        (_, Blkfront disk) = await ConnectAsync(path);
        await using (disk)
        {
            await KillAsync();
            File.Move(path, path + ".kept");
            Daemon = StartDaemon();
            Task<BlkifStatus> write = disk.WriteAsync(0, new byte[512]);
            await AwaitLogAsync("cannot be taken over yet");
            Assert.That(write.IsCompleted, Is.False);

            File.Move(path + ".kept", path);
            Assert.That(await write.WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
        }
    }

    [Test]
    public async Task A_journal_of_another_version_is_refused_and_kept()
    {
        (_, Blkfront disk) = await ConnectAsync(MakeImage("a.img"));
        await using (disk)
        {
            Task<BlkifStatus> write = disk.WriteAsync(0, new byte[512]);
            await StopDaemonAsync();
            string journal = Directory.GetFiles(Path.Combine(Layout.RunDirectory, "journal")).Single();
            using (FileStream file = File.OpenWrite(journal))
            {
                file.Position = 8;
                file.WriteByte(3);
            }

            Daemon = StartDaemon();
            await AwaitLogAsync("has journal format 3, and this daemon knows 2");
            await StopDaemonAsync();
            using (FileStream file = File.OpenWrite(journal))
            {
                file.Position = 8;
                file.WriteByte(2);
            }

            Daemon = StartDaemon();
            Assert.That(await write.WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(await disk.WriteAsync(0, new byte[512]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
        }
    }

    [Test]
    public async Task A_poisonous_request_ends_in_one_quarantined_disk()
    {
        await StopDaemonAsync();
        Dictionary<string, string> poisoned = new() { ["UBLKBACK_KILL_AT"] = "Poison4242:1" };
        Daemon = StartDaemon(environment: poisoned);
        (EmulatedGuest guest, Blkfront disk) = await ConnectAsync(MakeImage("a.img"));
        await using (disk)
        {
            await Toolstack.AttachAsync(1, Disk(MakeImage("b.img", VerifyingLoad.DiskSize), deviceId: 51728));
            await using Blkfront neighbour = await ConnectAsync(guest, 51728);
            VerifyingLoad load = new(neighbour);
            await load.ProgressAsync(100, Soon);
            Task<BlkifStatus> innocent = disk.WriteAsync(8, new byte[512]);
            Task<BlkifStatus> poison = disk.ReadAsync(4242, new byte[512]);
            int deaths = 0;
            while (true)
            {
                Task ended = await Task.WhenAny(poison, Daemon.WaitForExitAsync().WaitAsync(Soon));
                await ended;
                if (ended == poison) break;
                Assert.That(++deaths, Is.LessThan(10), "a crash loop");
                Daemon = StartDaemon(environment: poisoned);
            }

            Assert.That(deaths, Is.EqualTo(5));
            Assert.That(await poison, Is.EqualTo(BlkifStatus.Error));
            Assert.That(await innocent.WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(
                await disk.ReadAsync(0, new byte[512]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Error), "quarantined");
            Assert.That(await AwaitLogAsync("quarantined"), Does.Contain("dom1 xvda").And.Contain("at sector 4242"));
            await load.ProgressAsync(100, Soon);
            await load.StopAsync(Soon);
        }
    }

    // By another daemon.
    private async Task ServedToTheEndAsync(VerifyingLoad load, Blkfront disk)
    {
        Daemon = StartDaemon();
        await load.ProgressAsync(100, Soon);
        await load.StopAsync(Soon);
        await disk.CloseAsync(Soon);
    }
}
