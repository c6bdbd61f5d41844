using System.Buffers.Binary;
using System.Diagnostics;
using System.Text;
using System.Text.RegularExpressions;
using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.HostTests.Fixtures;
using Ublkback.Rados.Pools;

namespace Ublkback.HostTests.Formats;

/// <summary>VDIs in a pool of Ceph that many hosts share, and images of RBD.</summary>
public sealed partial class RadosTests : VdiFixture
{
    private const int Blocks = 256;
    private const int BlockSize = 4096;

    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(1); // with an OSD that looks for room

    private string _pool = "";

    [SetUp]
    public async Task MakePool()
    {
        _pool = await OneNodeCeph.MakePoolAsync();
        StoreOption = $"rados:{_pool}?conf={OneNodeCeph.Configuration}";
    }

    [Test]
    public async Task A_request_of_another_program_gets_a_reply_in_a_pool()
    {
        await VdiAsync("create", "web", $"{Blocks * BlockSize}");
        (_, Blkfront disk) = await ConnectAsync(TargetOf("web"));
        await using (disk)
        {
            Assert.That(await disk.WriteAsync(0, new byte[BlockSize]), Is.EqualTo(BlkifStatus.Okay));
            foreach ((string request, string reply) in new (string, string)[]
            {
                ("""{"version":1,"command":"snapshot","snapshot":"nightly"}""", """{"version":1}"""),
                ("""{"command":"snapshot","snapshot":"a"}""", """{"version":1,"error":"the request has version 0 ("""),
                ("""{"version":1,"command":"grow"}""", """{"version":1,"error":"unknown command """),
                ("""{"version":1,"command":"collect","a":1}""", """{"version":1,"error":"the field $.a of """),
                ("nonsense", """{"version":1,"error":"the message is not JSON"""),
                (new string('x', (64 << 10) + 1), """{"version":1,"error":"the message is longer than 64 KiB"""),
            })
                Assert.That(await NotifyAsync(request), Does.StartWith(reply), request[..8]);
            Assert.That(await VdiAsync("snapshots", "web"), Does.Contain("web@nightly").And.Not.Contain("web@a"));
            await disk.CloseAsync(Soon);
        }
    }

    [Test]
    public async Task A_daemon_that_was_replaced_acknowledges_nothing()
    {
        await VdiAsync("create", "web", $"{Blocks * BlockSize}");
        (_, Blkfront disk) = await ConnectAsync(TargetOf("web"));
        await using (disk)
        {
            uint[] acknowledged = new uint[Blocks], issued = new uint[Blocks];
            bool isReplaced = false;
            int late = 0, refused = 0;
            using CancellationTokenSource stopping = new();
            Task[] writers = [.. Enumerable.Range(0, 8).Select(writer => Task.Run(async () =>
            {
                byte[] data = new byte[BlockSize];
                Random random = new(writer);
                while (!stopping.IsCancellationRequested)
                {
                    int block = (random.Next(Blocks / 8) * 8) + writer;
                    BinaryPrimitives.WriteUInt32LittleEndian(data, ++issued[block]);
                    bool isLate = Volatile.Read(ref isReplaced);
                    BlkifStatus status = await disk.WriteAsync((ulong)block * 8, data);
                    if (status == BlkifStatus.Okay) acknowledged[block] = issued[block];
                    if (isLate) Interlocked.Increment(ref status == BlkifStatus.Okay ? ref late : ref refused);
                }
            }))];
            // a look at counters that other threads change at full speed
            while (acknowledged.Sum(count => count) < 500) await Task.Delay(1);
            await SignalAsync(Daemon, "STOP");
            await Task.Delay(100);
            uint[] before = [.. acknowledged];

            // Another host asks, and gets no answer. It takes over when it is told to.
            Assert.That(
                await RefusedAsync("snapshot", "web", "taken"),
                Does.Contain("which does not answer: try again, or if it is dead, 'ublkback vdi lock web --break'"));
            (int result, _, string said) = await RunAsync("vdi", "lock", "web", "--break", "--store", StoreOption);
            Assert.That(
                (result, said.Contains("does not answer, and is replaced", StringComparison.Ordinal)),
                Is.EqualTo((0, true)), said);
            await VdiAsync("snapshot", "web", "taken");
            Volatile.Write(ref isReplaced, true);
            await SignalAsync(Daemon, "CONT");
            long deadline = Stopwatch.GetTimestamp() + (long)(Soon.TotalSeconds * Stopwatch.Frequency);
            // as above
            while (Volatile.Read(ref refused) < 100 && Volatile.Read(ref late) == 0
                && Stopwatch.GetTimestamp() < deadline)
                await Task.Delay(1);
            await stopping.CancelAsync();
            await Task.WhenAll(writers).WaitAsync(Soon);
            Assert.That(
                (late, refused), Is.EqualTo((0, refused)).And.Not.EqualTo((0, 0)),
                "writes that came after another host had taken over were acknowledged");
            Assert.That(await disk.ReadAsync(0, new byte[BlockSize]), Is.EqualTo(BlkifStatus.Error));
            await AwaitLogAsync("another host has taken this VDI over");

            string copy = Path.Combine(Scratch, "web.img");
            await VdiAsync("export", "web@taken", copy);
            byte[] content = await File.ReadAllBytesAsync(copy);
            for (int block = 0; block < Blocks; block++)
            {
                uint found = BinaryPrimitives.ReadUInt32LittleEndian(content.AsSpan(block * BlockSize));
                Assert.That(
                    found, Is.InRange(acknowledged[block], issued[block]),
                    $"block {block}: acknowledged before {before[block]}");
            }

            await disk.CloseAsync(Soon);
        }

        await Toolstack.DetachAsync(1, Disk(TargetOf("web")));
        Assert.That(await VdiAsync("fsck"), Does.Contain("all is whole"));
    }

    [Test]
    public async Task A_storage_that_dies_while_it_writes_is_waited_for([Values] bool isRbd)
    {
        string target = isRbd ? $"rbd:{_pool}/disk?conf={OneNodeCeph.Configuration}" : TargetOf("web");
        if (isRbd)
            await OneNodeCeph.RunToolAsync("rbd", "create", $"{_pool}/disk", "--size", $"{VerifyingLoad.DiskSize}B");
        else await VdiAsync("create", "web", $"{VerifyingLoad.DiskSize}");
        (_, Blkfront disk) = await ConnectAsync(target);
        await using (disk)
        {
            VerifyingLoad load = new(disk);
            for (int i = 0; i < 2; i++)
            {
                await load.ProgressAsync(200, Soon);
                await OneNodeCeph.RestartOsdAsync();
            }

            await load.ProgressAsync(200, TimeSpan.FromMinutes(2));
            if (isRbd) Assert.That(await RefuseOtherAsync(target), Does.Contain("in use by another client of Ceph"));
            await load.StopAsync(Soon);
            await disk.CloseAsync(Soon);
        }

        await Toolstack.DetachAsync(1, Disk(target));
        await AwaitLogAsync("gone");
        if (!isRbd) Assert.That(await VdiAsync("fsck"), Does.Contain("all is whole"));
    }

    [Test]
    public async Task A_pool_that_is_full_refuses_writes_and_nothing_else()
    {
        const int Size = 8 << 20;
        await VdiAsync("create", "web", $"{Size}");
        (_, Blkfront disk) = await ConnectAsync(TargetOf("web"));
        await using (disk)
        {
            byte[] data = new byte[Size], read = new byte[Size];
            Random.Shared.NextBytes(data);
            Assert.That(await disk.WriteAsync(0, data).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
            await VdiAsync("snapshot", "web", "s");
            await OneNodeCeph.SetFullAsync(true);
            try
            {
                await WriteUntilAsync(disk, data, BlkifStatus.Error);
                await AwaitLogAsync("storage is full");
                string ranges = await RangesAsync();
                for (int i = 0; i < 20; i++)
                    Assert.That(await disk.WriteAsync(0, data).WaitAsync(Patience), Is.EqualTo(BlkifStatus.Error));
                Assert.That(await RangesAsync(), Is.EqualTo(ranges), "numbers of segments are not used up in vain");
                Assert.That(await disk.ReadAsync(0, read).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
                Assert.That(read.AsSpan().SequenceEqual(data));
                await VdiAsync("delete", "web@s");
                await VdiAsync("gc");
            }
            finally
            {
                await OneNodeCeph.SetFullAsync(false);
            }

            await WriteUntilAsync(disk, data, BlkifStatus.Okay);
            await disk.CloseAsync(Soon);
        }

        await Toolstack.DetachAsync(1, Disk(TargetOf("web")));
        Assert.That(await VdiAsync("fsck"), Does.Contain("all is whole"));
    }

    [Test]
    public async Task What_is_wrong_with_a_pool_or_an_image_is_one_clear_line()
    {
        string option = $"conf={OneNodeCeph.Configuration}";
        await OneNodeCeph.RunToolAsync("rbd", "create", $"{_pool}/open", "--size", "8M", "--image-feature", "layering");
        await MakeGuestAsync(5);
        foreach ((string target, string refusal) in new (string, string)[]
        {
            ($"rbd:{_pool}/nobody?{option}", "is not there: see 'rbd ls"),
            ($"rbd:nopool/disk?{option}", "there is no pool nopool"),
            ($"rbd:disk?{option}", "names no image"),
            ($"rbd:{_pool}/open?{option}", "has no exclusive lock"),
            ($"vdi:web?store=rados:nopool&{option}", "there is no pool nopool"),
            ($"vdi:web?store=rados:{_pool}&{option}", "there is no store of VDIs in the pool"),
        })
        {
            ToolstackException? failure = Assert.ThrowsAsync<ToolstackException>(
                () => Toolstack.AttachAsync(5, Disk(target)));
            Assert.That(failure!.Message, Does.Contain(refusal));
            await Toolstack.DetachAsync(5, Disk(target));
        }
    }

    [Test]
    public async Task A_command_in_another_namespace_takes_nothing_from_who_lives()
    {
        await VdiAsync("create", "web", $"{Blocks * BlockSize}");
        (_, Blkfront disk) = await ConnectAsync(TargetOf("web"));
        await using (disk)
        {
            foreach (string[] command in new string[][] { ["snapshot", "web", "s"], ["list"], ["gc"], ["fsck"] })
            {
                Assert.That(
                    await RunOtherAsync(
                        "unshare",
                        ["-fp", "--mount-proc", Program, "vdi", .. command, "--store", StoreOption]),
                    Does.StartWith("0:"), command[0]);
                Assert.That(await disk.WriteAsync(0, new byte[BlockSize]), Is.EqualTo(BlkifStatus.Okay), command[0]);
            }

            Assert.That(await VdiAsync("lock", "web"), Does.Contain("in use by"));
            await disk.CloseAsync(Soon);
        }
    }

    [Test]
    public async Task A_connection_that_Ceph_shuts_out_costs_no_other_disk([Values] bool isRbd)
    {
        await OneNodeCeph.RunToolAsync("rbd", "create", $"{_pool}/disk", "--size", "8M");
        await VdiAsync("create", "web", $"{Blocks * BlockSize}");
        await VdiAsync("create", "late", $"{Blocks * BlockSize}");
        string rbd = $"rbd:{_pool}/disk?conf={OneNodeCeph.Configuration}";
        (_, Blkfront image) = await ConnectAsync(rbd);
        await using (image)
        {
            Blkfront vdi = await ConnectAsync(2, TargetOf("web"));
            await using (vdi)
            {
                string watched = isRbd
                    ? (await RunCephAsync("rados", "ls")).Split('\n').Single(
                        name => name.StartsWith("rbd_header.", StringComparison.Ordinal))
                    : WatchedObject().Match(await RunCephAsync("rados", "ls")).Value;
                string watcher = await RunCephAsync("rados", "listwatchers", watched);
                await OneNodeCeph.RunToolAsync(
                    "ceph", "osd", "blocklist", "add", WatcherAddress().Match(watcher).Groups[1].Value);
                (Blkfront shutOut, Blkfront other) = isRbd ? (image, vdi) : (vdi, image);
                while (await shutOut.WriteAsync(0, new byte[BlockSize]).WaitAsync(Patience) == BlkifStatus.Okay)
                    await Task.Delay(10); // the OSD does not know yet
                Assert.That(
                    await other.WriteAsync(0, new byte[BlockSize]).WaitAsync(Soon), Is.EqualTo(BlkifStatus.Okay));
                if (!isRbd) await AwaitLogAsync("the Ceph cluster has shut this connection out");
                Blkfront late = await ConnectAsync(3, TargetOf("late"));
                await using (late)
                {
                    Assert.That(await late.WriteAsync(0, new byte[BlockSize]), Is.EqualTo(BlkifStatus.Okay));
                    await late.CloseAsync(Soon);
                }

                await vdi.CloseAsync(Soon);
            }

            await image.CloseAsync(Soon);
        }
    }

    private async Task<Blkfront> ConnectAsync(int domid, string target)
    {
        EmulatedGuest guest = await MakeGuestAsync(domid);
        await Toolstack.AttachAsync(domid, Disk(target));
        return await ConnectAsync(guest);
    }

    private Task<string> RunCephAsync(string program, params string[] arguments) =>
        RunOtherAsync(program, ["-c", OneNodeCeph.Configuration, "-p", _pool, .. arguments]);

    private Task<string> RangesAsync() =>
        RunOtherAsync("rados", "-c", OneNodeCeph.Configuration, "-p", _pool, "listomapkeys", "vdi.000001.00000000");

    // Writes the same again and again, since the OSD finds out some seconds later how full it is.
    private static async Task WriteUntilAsync(Blkfront disk, byte[] data, BlkifStatus wanted)
    {
        long began = Stopwatch.GetTimestamp();
        while (await disk.WriteAsync(0, data).WaitAsync(Patience) != wanted)
            Assert.That(Stopwatch.GetElapsedTime(began), Is.LessThan(Patience), $"no write was {wanted}");
    }

    private static async Task<string> RefuseOtherAsync(string target)
    {
        using Process process = Process.Start(
            new ProcessStartInfo(Program, ["export", target, "--unix", "/nowhere"]) { RedirectStandardError = true })!;
        return await process.StandardError.ReadToEndAsync().WaitAsync(TimeSpan.FromSeconds(60));
    }

    // Sends a request to the process that holds the only open VDI of the pool.
    private async Task<string> NotifyAsync(string request)
    {
        string objects = await OneNodeCeph.RunToolAsync("rados", "-p", _pool, "ls");
        RadosName watched = new(WatchedObject().Matches(objects)[^1].Value); // the output is that of all calls
        using RadosPool pool = RadosPool.Open(new RadosAddress(_pool, OneNodeCeph.Configuration, null), false);
        byte[] message = [.. Guid.NewGuid().ToByteArray(), .. Encoding.UTF8.GetBytes(request)];
        (IReadOnlyList<byte[]> answers, int silent) = RadosWatch.Notify(pool, watched, message, Soon);
        Assert.That((answers.Count, silent), Is.EqualTo((1, 0)));
        return Encoding.UTF8.GetString(answers[0]);
    }

    [GeneratedRegex("watcher=([^ ]+)")]
    private static partial Regex WatcherAddress();

    [GeneratedRegex("vdi\\.door\\.[0-9a-f]+")]
    private static partial Regex WatchedObject();
}
