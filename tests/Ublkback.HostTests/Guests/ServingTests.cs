using System.Diagnostics;
using System.Text.Json;
using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Guests;

/// <summary>Disks that work: every kind of frontend, attach and detach, restarts.</summary>
public sealed class ServingTests : HostFixture
{
    private static readonly TimeSpan DrainPatience = TimeSpan.FromSeconds(5); // BlkifConnection's

    private static IEnumerable<TestCaseData> Frontends()
    {
        foreach (BlkifAbi abi in new[] { BlkifAbi.X86_64, BlkifAbi.X86_32 })
        {
            yield return new TestCaseData(new BlkfrontOptions(abi)).SetArgDisplayNames($"{abi.Protocol}, one page");
            for (int order = 0; order <= 4; order++)
                yield return new TestCaseData(new BlkfrontOptions(abi, order))
                    .SetArgDisplayNames($"{abi.Protocol}, order {order}");
            foreach (bool isPersistent in new[] { false, true })
            {
                foreach (int queues in new[] { 1, 2 })
                {
                    foreach (int segments in new[] { 11, 12, 256 })
                    {
                        yield return new TestCaseData(new BlkfrontOptions(abi, 1, queues, isPersistent, segments))
                            .SetArgDisplayNames(
                            $"{abi.Protocol}, {queues} queue(s), {(isPersistent ? "persistent" : "copied")}, "
                            + $"{segments} segments");
                    }
                }
            }
        }
    }

    [Test]
    public void Workers_go_before_the_rest_of_the_daemon()
    {
        const int NiceField = 16; // of proc_pid_stat(5), counted from the one after the name
        ILookup<bool, string> nices = Directory.GetDirectories($"/proc/{Daemon.Id}/task")
            .Select(task => File.ReadAllText($"{task}/stat"))
            .ToLookup(
                stat => stat.Contains("(worker-", StringComparison.Ordinal),
                stat => stat[(stat.LastIndexOf(')') + 2)..].Split(' ')[NiceField]);
        Assert.That(nices[true].ToList(), Has.Count.EqualTo(Environment.ProcessorCount).And.All.EqualTo("-10"));
        Assert.That(nices[false].ToList(), Is.Not.Empty.And.All.EqualTo("0"));
    }

    [TestCaseSource(nameof(Frontends))]
    public async Task Data_survives_any_kind_of_ring(BlkfrontOptions options)
    {
        string image = MakeImage("a.img");
        (_, Blkfront disk) = await ConnectAsync(image, options);
        await using (disk)
        {
            Assert.That(disk.SectorCount, Is.EqualTo((8ul << 20) / 512));
            Assert.That(await disk.Connection.BackendNodeAsync("feature-flush-cache"), Is.EqualTo("1"));
            Random random = new(4);
            byte[] data = new byte[4 << 20];
            random.NextBytes(data);
            await Task.WhenAll(Enumerable.Range(0, 64).Select(async i =>
                Assert.That(
                    await disk.WriteAsync((ulong)i * 128, data.AsMemory(i * 65536, 65536)),
                    Is.EqualTo(BlkifStatus.Okay))));
            random.NextBytes(data.AsSpan(1 << 20, 1 << 20));
            Assert.That(await disk.WriteAsync(2048, data.AsMemory(1 << 20, 1 << 20)), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(await disk.FlushAsync(), Is.EqualTo(BlkifStatus.Okay));
            byte[] read = new byte[data.Length];
            Assert.That(await disk.ReadAsync(0, read), Is.EqualTo(BlkifStatus.Okay));

            Assert.That(read.AsSpan().SequenceEqual(data), Is.True);
            if (options.IsPersistent) Assert.That(await PersistentPagesAsync(), Is.Positive);
            await disk.CloseAsync(Soon);
            Assert.That(MappedRingPages(), Is.Zero, "persistent grants are released");
            Assert.That(File.ReadAllBytes(image).AsSpan(0, data.Length).SequenceEqual(data), Is.True);
        }
    }

    // Some toolstacks write without a transaction, so that the daemon sees the state before the target and the mode.
    [Test]
    public async Task Nodes_that_are_written_after_the_state_count()
    {
        string image = MakeImage("a.img");
        EmulatedGuest guest = await MakeGuestAsync(1);
        string backend = EmulatedHost.Toolstack.BackendPath(1, Disk(image));
        string frontend = FrontendConnection.FrontendPath(1, Xvda);
        await Store.WriteAsync($"{frontend}/backend", backend);
        await Store.WriteAsync($"{frontend}/backend-id", "0");
        await Store.WriteAsync($"{frontend}/virtual-device", "51712");
        await Store.WriteAsync($"{frontend}/state", "1");
        await Store.SetPermissionsAsync(frontend, "n1", "r0");
        foreach (string node in new[] { "backend", "backend-id", "virtual-device", "state" })
            await Store.SetPermissionsAsync($"{frontend}/{node}", "n1", "r0");
        await Store.WriteAsync($"{backend}/frontend", frontend);
        await Store.SetPermissionsAsync(backend, "n0", "r1");
        await Store.WriteAsync($"{backend}/online", "1");
        await Store.WriteAsync($"{backend}/script", Script);
        await Store.WriteAsync($"{backend}/state", "1");
        await AwaitLogAsync("no target given");
        Assert.That((await VbdAsync("list")).GetProperty("trouble").GetString(), Does.StartWith("no target given"));
        await Store.WriteAsync($"{backend}/params", image);
        await AwaitLogAsync("read-only");
        await Store.WriteAsync($"{backend}/mode", "w");
        await AwaitLogAsync("writable");
        await using Blkfront disk = await ConnectAsync(guest);
        Assert.That(await disk.WriteAsync(0, new byte[512]), Is.EqualTo(BlkifStatus.Okay));
        Assert.That((await VbdAsync("list")).TryGetProperty("trouble", out _), Is.False);
    }

    // With persistent grants a ring maps pages when requests name them: an idle one has none to release.
    [Test]
    public async Task An_idle_disk_is_released_at_once([Values(1, 2)] int queues, [Values] bool isPersistent)
    {
        BlkfrontOptions options = new(BlkifAbi.X86_64, 1, queues, isPersistent);
        string image = MakeImage("a.img");
        EmulatedGuest guest = await MakeGuestAsync(1);
        for (int round = 0; round < 2; round++)
        {
            await Toolstack.AttachAsync(1, Disk(image));
            await using Blkfront disk = await ConnectAsync(guest, options: options);
            long start = Stopwatch.GetTimestamp();
            await disk.CloseAsync(Soon);
            await Toolstack.DetachAsync(1, Disk(image));
            Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(DrainPatience));
        }

        Assert.That(await File.ReadAllTextAsync(DaemonLog), Does.Not.Contain("blocked"));
    }

    [Test]
    public async Task A_frontend_in_C_made_of_Xens_own_headers_agrees()
    {
        string program = Path.Combine(Scratch, "blkfront");
        string source = Path.Combine(Path.GetDirectoryName(Script)!, "../native/blkfront.c");
        Assert.That(
            await RunOtherAsync("cc", "-Wall", "-Werror", "-O2", "-o", program, source, "-lxenstore"),
            Does.StartWith("0:"));
        await Toolstack.CreateDomainAsync(1);
        await Toolstack.AttachAsync(1, Disk(MakeImage("a.img", 32 << 20)));

        Assert.That(
            await RunOtherAsync(program, Layout.Root, "1", $"{Xvda}", "32"),
            Does.StartWith("0:65536 sectors written, flushed, read and right"));
    }

    [Test]
    public async Task Debians_xenstore_tools_work_against_the_store()
    {
        await Toolstack.CreateDomainAsync(1);
        await Toolstack.AttachAsync(1, Disk(MakeImage("a.img")));
        string listing = await RunOtherAsync(
            "env", $"XENSTORED_PATH={Layout.StoreSocket}", "xenstore-ls", "-f", "/local/domain/0/backend");
        Assert.That(listing, Does.Contain("/vbd/1/51712/hotplug-status = \"connected\""));

        using Process watch = Process.Start(new ProcessStartInfo("xenstore-watch", ["-n", "2", "/watched"])
        {
            Environment = { ["XENSTORED_PATH"] = Layout.StoreSocket },
            RedirectStandardOutput = true,
        })!;
        Assert.That(await watch.StandardOutput.ReadLineAsync().WaitAsync(Soon), Is.EqualTo("/watched"));
        await Store.WriteAsync("/watched/below", "1");
        Assert.That(await watch.StandardOutput.ReadLineAsync().WaitAsync(Soon), Is.EqualTo("/watched/below"));
    }

    [Test]
    public async Task A_flush_may_carry_data()
    {
        string image = MakeImage("a.img");
        (EmulatedGuest guest, Blkfront disk) = await ConnectAsync(image);
        await using (disk)
        {
            uint page = guest.AllocatePages(1);
            guest.Pages(page, 1).Fill(0x5A);
            BlkifRequest request = new() { Operation = BlkifOperation.FlushDiskCache, SegmentCount = 1, Sector = 16 };
            request.Segments[0] = new BlkifSegment(guest.Grant(page, 0), 1, 2);

            Assert.That((await disk.SubmitAsync(request)).Status, Is.EqualTo(BlkifStatus.Okay));
            byte[] content = File.ReadAllBytes(image);
            Assert.That(content.AsSpan(16 * 512, 1024).ContainsAnyExcept((byte)0x5A), Is.False);
            Assert.That(content.AsSpan(18 * 512).ContainsAnyExcept((byte)0), Is.False);
        }
    }

    [Test]
    public async Task A_read_only_disk_takes_no_writes()
    {
        string image = MakeImage("a.img");
        EmulatedGuest guest = await MakeGuestAsync(1);
        await Toolstack.AttachAsync(1, Disk(image, isWritable: false));
        await using Blkfront disk = await ConnectAsync(guest);

        Assert.That(disk.Info, Is.EqualTo(4));
        Assert.That(await disk.WriteAsync(0, new byte[512]), Is.EqualTo(BlkifStatus.Error));
        Assert.That(await disk.ReadAsync(0, new byte[512]), Is.EqualTo(BlkifStatus.Okay));
        Assert.That(await disk.FlushAsync(), Is.EqualTo(BlkifStatus.Okay));
    }

    [Test]
    public async Task Vbd3_is_served_as_well_and_others_devices_are_left_alone()
    {
        EmulatedGuest guest = await MakeGuestAsync(1);
        await Toolstack.AttachAsync(1, Disk(MakeImage("a.img"), kind: "vbd3"));
        await using Blkfront disk = await ConnectAsync(guest);
        Assert.That(await disk.WriteAsync(0, new byte[512]), Is.EqualTo(BlkifStatus.Okay));

        const string Foreign = "/local/domain/0/backend/vbd/1/51728";
        await Store.WriteAsync($"{Foreign}/script", "/etc/xen/scripts/block");
        await Store.WriteAsync($"{Foreign}/frontend", "/local/domain/1/device/vbd/51728");
        await Store.WriteAsync($"{Foreign}/state", "1");
        await Toolstack.AttachAsync(1, Disk(MakeImage("b.img"), deviceId: 51744)); // the daemon has looked since
        Assert.That(await Store.ReadAsync($"{Foreign}/state"), Is.EqualTo("1"));
    }

    [Test]
    public async Task List_and_stats_tell_what_happened()
    {
        string image = MakeImage("a.img");
        (_, Blkfront disk) = await ConnectAsync(image);
        await using (disk)
        {
            for (int i = 0; i < 10; i++) await disk.WriteAsync((ulong)i, new byte[512]);
            await disk.FlushAsync();
            await disk.ReadAsync(1ul << 40, new byte[512]);

            (int status, string json, _) = await RunAsync("stats", "--json", "--host", Layout.Root);
            Assert.That(status, Is.Zero);
            JsonElement vbd = JsonDocument.Parse(json).RootElement[0];
            Assert.That(vbd.GetProperty("target").GetString(), Is.EqualTo(image));
            Assert.That(vbd.GetProperty("state").GetString(), Is.EqualTo("Connected"));
            Assert.That(vbd.GetProperty("refused").GetInt64(), Is.EqualTo(1));
            Assert.That(vbd.GetProperty("inFlight").GetInt32(), Is.Zero);
            JsonElement write = vbd.GetProperty("operations")[1];
            Assert.That(
                (write.GetProperty("operation").GetString(), write.GetProperty("requests").GetInt64(),
                    write.GetProperty("bytes").GetInt64()),
                Is.EqualTo(("Write", 10, 5120)));
            Assert.That(write.GetProperty("p50Us").GetDouble(), Is.Positive);

            (_, string table, _) = await RunAsync("list", "--host", Layout.Root);
            Assert.That(table, Does.Contain("xvda").And.Contain("Connected").And.Contain("8.0 MiB"));
        }
    }

    private static IEnumerable<BlkfrontOptions> FrontendsThatStay() =>
        [new(BlkifAbi.X86_64, 1), new(BlkifAbi.X86_64, 1, Queues: 2, IsPersistent: true, MaxSegments: 32)];

    [TestCaseSource(nameof(FrontendsThatStay))]
    public async Task A_guest_does_not_notice_a_daemon_that_is_replaced(BlkfrontOptions options)
    {
        (_, Blkfront disk) = await ConnectAsync(MakeImage("a.img"), options);
        await using (disk)
        {
            using CancellationTokenSource stop = new();
            Task[] load = [.. Enumerable.Range(0, 16).Select(async worker =>
            {
                byte[] data = new byte[65536];
                byte[] read = new byte[65536];
                for (byte round = 1; !stop.IsCancellationRequested; round++)
                {
                    Array.Fill(data, round);
                    Assert.That(await disk.WriteAsync((ulong)worker * 128, data), Is.EqualTo(BlkifStatus.Okay));
                    Assert.That(await disk.ReadAsync((ulong)worker * 128, read), Is.EqualTo(BlkifStatus.Okay));
                    Assert.That(read, Is.EqualTo(data));
                }
            })];
            for (int i = 0; i < 3; i++)
            {
                await StopDaemonAsync();
                Daemon = await StartDaemonAsync();
                await AwaitLogAsync("taken over");
                await disk.ReadAsync(0, new byte[512]).WaitAsync(Soon);
                Assert.That(await Store.ReadAsync($"/local/domain/0/backend/vbd/1/{Xvda}/state"), Is.EqualTo("4"));
            }

            await stop.CancelAsync();
            await Task.WhenAll(load).WaitAsync(Soon);
            await disk.CloseAsync(Soon);
        }
    }

    [Test]
    public async Task A_disk_whose_journal_is_lost_is_left_as_it_is()
    {
        (_, Blkfront disk) = await ConnectAsync(MakeImage("a.img"));
        await using (disk)
        {
            await disk.WriteAsync(0, new byte[512]);
            Daemon.Kill();
            await Daemon.WaitForExitAsync();
            Directory.Delete(Path.Combine(Layout.RunDirectory, "journal"), recursive: true);
            await StartDaemonAsync();

            Assert.That(await AwaitLogAsync("there is no journal of it"), Does.Contain("dom1 xvda"));
            Assert.That(
                await Store.ReadAsync($"/local/domain/0/backend/vbd/1/{Xvda}/state"), Is.EqualTo("4"),
                "closing would kill the guest's disk");
        }
    }

    [Test]
    public async Task A_lost_store_is_told_and_found_again_while_guests_go_on()
    {
        (EmulatedGuest guest, Blkfront disk) = await ConnectAsync(MakeImage("a.img"));
        await using (disk)
        {
            TaskCompletionSource found = new(TaskCreationOptions.RunContinuationsAsynchronously);
            Store.Reconnected += found.SetResult;
            await SignalAsync(Host, "USR1");
            await AwaitLogAsync("connection lost");
            Assert.That(await disk.WriteAsync(0, new byte[512]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
            await AwaitLogAsync("connected again");
            await found.Task.WaitAsync(Soon);

            await Toolstack.AttachAsync(1, Disk(MakeImage("b.img"), deviceId: 51728));
            await using Blkfront second = await ConnectAsync(guest, 51728);
            Assert.That(await second.WriteAsync(0, new byte[512]), Is.EqualTo(BlkifStatus.Okay));
            await disk.CloseAsync(Soon);
        }
    }

    [Test]
    public async Task Detaching_leaves_nothing_behind([Values] bool force, [Values] bool underLoad)
    {
        string image = MakeImage("a.img");
        EmulatedGuest guest = await MakeGuestAsync(1);
        await Toolstack.AttachAsync(1, Disk(image));
        Blkfront disk = await ConnectAsync(guest);
        await using (disk)
        {
            using CancellationTokenSource stop = new();
            Task load = underLoad ? LoadAsync(disk, stop.Token) : Task.CompletedTask;
            if (force)
            {
                await Toolstack.DetachAsync(1, Disk(image), force: true);
                await stop.CancelAsync();
            }
            else
            {
                // As blkfront does: it stops, then follows the backend into Closing.
                Task detaching = Toolstack.DetachAsync(1, Disk(image));
                await FrontendConnection.WaitForStateAsync(Store, $"/local/domain/0/backend/vbd/1/{Xvda}", Soon, "5");
                await stop.CancelAsync();
                await load.WaitAsync(Soon);
                await disk.CloseAsync(Soon);
                await detaching;
            }
        }

        await AwaitLogAsync("gone");
        Assert.That(await Store.ListAsync("/local/domain/0/backend/vbd/1"), Is.Empty);
        Assert.That(DescriptorsOf(Daemon), Has.None.Contains("a.img").And.None.Contains("/ports/"));
        Assert.That(MappedRingPages(), Is.Zero, "only the domain's memory as a whole stays mapped");
        Assert.That(
            await RunOtherAsync("qemu-io", "-f", "raw", "-c", "write 0 512", image), Does.StartWith("0:wrote 512/512"),
            "no lock is left");
    }

    [Test]
    public async Task A_rebooting_guest_finds_its_disk_again()
    {
        string image = MakeImage("a.img");
        for (int domid = 1; domid <= 3; domid++)
        {
            EmulatedGuest guest = await MakeGuestAsync(domid, "one-machine");
            await Toolstack.AttachAsync(domid, Disk(image));
            await using Blkfront disk = await ConnectAsync(guest);
            byte[] data = new byte[512];
            Assert.That(await disk.ReadAsync(0, data), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(data, Is.All.EqualTo((byte)(domid - 1)), "what the life before wrote");
            Array.Fill(data, (byte)domid);
            Assert.That(await disk.WriteAsync(0, data), Is.EqualTo(BlkifStatus.Okay));
            await Toolstack.DestroyDomainAsync(domid, Script);
        }
    }

    private async Task<int> PersistentPagesAsync() =>
        (await VbdAsync("list")).GetProperty("persistentPages").GetInt32();

    // The emulated hypervisor maps a domain's memory once as a whole; pages of a ring are mapped beside that.
    private int MappedRingPages() => File.ReadLines($"/proc/{Daemon.Id}/maps")
        .Count(line => line.Contains("memfd:domain-", StringComparison.Ordinal)) - 1;

    private static async Task LoadAsync(Blkfront disk, CancellationToken stop)
    {
        try
        {
            while (!stop.IsCancellationRequested)
                await Task.WhenAll(Enumerable.Range(0, 32).Select(i => disk.WriteAsync((ulong)i * 8, new byte[4096])));
        }
        catch (InvalidOperationException)
        {
            // The disk was taken away.
        }
    }
}
