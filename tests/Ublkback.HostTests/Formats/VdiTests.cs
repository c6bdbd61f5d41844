using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Formats;

/// <summary>Guests whose disks are VDIs, in a folder and in a pool of Ceph.</summary>
[TestFixture(true)]
[TestFixture(false)]
public sealed class VdiTests(bool isFile) : VdiFixture
{
    private const int Kills = 8;

    [SetUp]
    public async Task MakeStore() =>
        StoreOption = isFile
            ? $"file:{Path.Combine(Scratch, "store")}"
            : $"rados:{await OneNodeCeph.MakePoolAsync()}?conf={OneNodeCeph.Configuration}";

    private static BlkfrontOptions Options(int queues) =>
        new(BlkifAbi.X86_64, 2, queues, IsPersistent: true, MaxSegments: 32);

    [Test]
    public async Task A_guest_notices_neither_snapshots_nor_kills_nor_upgrades([Values(1, 2)] int run)
    {
        int seed = Environment.TickCount + run;
        TestContext.Out.WriteLine($"seed {seed}");
        Random random = new(seed);
        await VdiAsync("create", "web", $"{VerifyingLoad.DiskSize}");
        (_, Blkfront disk) = await ConnectAsync(TargetOf("web"), Options(2));
        await using (disk)
        {
            VerifyingLoad load = new(disk);
            await load.ProgressAsync(100, Soon);
            for (int kill = 0; kill < Kills; kill++)
            {
                await VdiAsync("snapshot", "web", $"s{kill}");
                await Task.Delay(random.Next(random.Next(2) == 0 ? 50 : 400));
                if (kill % 3 == 2) await VdiAsync("gc");
                if (kill % 4 == 3) await StopDaemonAsync();
                else await KillAsync();
                Daemon = StartDaemon();
                await load.ProgressAsync(1 + random.Next(300), Soon);
                if (kill % 2 == 1) await VdiAsync("delete", $"web@s{kill - 1}");
            }

            await load.ProgressAsync(100, Soon);
            await load.StopAsync(Soon);
            await disk.CloseAsync(Soon);
        }

        await Toolstack.DetachAsync(1, Disk(TargetOf("web")));
        await AwaitLogAsync("gone");
        Assert.That(await VdiAsync("fsck"), Does.Contain("all is whole"));
        Assert.That(
            await VdiAsync("snapshots", "web"), Does.Contain("web@s1").And.Contain("web@s7").And.Not.Contain("web@s0"));
    }

    [Test]
    public async Task Commands_go_through_the_daemon_that_has_the_vdi()
    {
        await VdiAsync("create", "web", "8M");
        (_, Blkfront disk) = await ConnectAsync(TargetOf("web"), Options(1));
        byte[] first = [.. Enumerable.Repeat((byte)1, 4096)], second = [.. Enumerable.Repeat((byte)2, 4096)];
        Assert.That(await disk.WriteAsync(8, first), Is.EqualTo(BlkifStatus.Okay));
        Assert.That(await VdiAsync("snapshot", "web", "one"), Is.EqualTo("web@one\n"));
        Assert.That(await disk.WriteAsync(8, second), Is.EqualTo(BlkifStatus.Okay));
        Assert.That(await VdiAsync("lock", "web"), Does.Contain("in use by").And.Contain($"process {Daemon.Id} "));
        await VdiAsync("clone", "web@one", "old");
        await VdiAsync("export", "web@one", Path.Combine(Scratch, "one.img"));
        await VdiAsync("export", "old", $"qcow2:{Path.Combine(Scratch, "old.qcow2")}");
        Assert.That(
            (await File.ReadAllBytesAsync(Path.Combine(Scratch, "one.img"))).AsSpan(4096, 4096).SequenceEqual(first));
        Assert.That(await RunOtherAsync(
            "qemu-img", "compare", Path.Combine(Scratch, "one.img"), Path.Combine(Scratch, "old.qcow2")),
            Does.Contain("identical"));
        byte[] read = new byte[4096];
        string kept = (await VdiAsync("rollback", "web@one", "--live")).Split(' ')[^1].TrimEnd();
        Assert.That(
            (await disk.ReadAsync(8, read), read.AsSpan().SequenceEqual(first)), Is.EqualTo((BlkifStatus.Okay, true)));
        await VdiAsync("rollback", kept, "--live");
        await VdiAsync("resize", "web", "+8M");
        Assert.That(await VdiAsync("info", "web"), Does.Contain("16.0 MiB"));
        await VdiAsync("compact", "web");
        await VdiAsync("gc");
        Assert.That(
            (await disk.ReadAsync(8, read), read.AsSpan().SequenceEqual(second)), Is.EqualTo((BlkifStatus.Okay, true)));

        foreach ((string[] command, string refusal) in new (string[], string)[]
        {
            (["snapshot", "web", "one"], "there is a snapshot one already"),
            (["rollback", "web@one"], "when its guest has unmounted it, say --live"),
            (["rollback", "web@one", "--live"], "cannot shrink while it is in use: detach it first"),
            (["delete", "web"], "VDI web is in use by"),
            (["lock", "web", "--break"], "VDI web is in use by"),
            (["delete", "web@two"], "has no snapshot two"),
            (["resize", "web", "4M", "--shrink"], "is in use by"),
            (["export", "web", Path.Combine(Scratch, "web.img")], "VDI web is in use by"),
        })
        {
            Assert.That(await RefusedAsync(command), Does.Contain(refusal));
        }

        await disk.CloseAsync(Soon);
        await disk.DisposeAsync();
        await Toolstack.DetachAsync(1, Disk(TargetOf("web")));
        await AwaitLogAsync("gone");
        Assert.That(await VdiAsync("rollback", "web@one"), Does.Contain("before-rollback"));
        Assert.That(await VdiAsync("diff", "web", "web@one"), Does.Contain("0 B differ"));
        Assert.That(await VdiAsync("tree"), Does.Contain("@one").And.Contain("clone of web@one"));
        Assert.That(await VdiAsync("fsck"), Does.Contain("all is whole"));
    }

    // A guest that is paused, or has no driver yet.
    [Test]
    public async Task Commands_are_carried_out_at_once_for_a_vdi_that_is_attached_and_not_used_yet()
    {
        await VdiAsync("create", "web", "8M");
        await MakeGuestAsync(1);
        await Toolstack.AttachAsync(1, Disk(TargetOf("web")));
        await AwaitLogAsync("opened");
        Assert.That(await VdiAsync("lock", "web"), Does.Contain("in use by").And.Contain($"process {Daemon.Id} "));
        await VdiAsync("snapshot", "web", "one");
        Assert.That(await VdiAsync("snapshots", "web"), Does.Contain("web@one"));
        await VdiAsync("resize", "web", "16M");
        Assert.That(await VdiAsync("list"), Does.Contain("16"));
        await VdiAsync("tree");
        await VdiAsync("gc");
        Assert.That(await VdiAsync("fsck"), Does.Contain("all is whole"));
        await VdiAsync("delete", "web@one");
    }

    [Test]
    public async Task A_users_mistake_is_one_clear_line()
    {
        foreach ((string[] command, string refusal) in new (string[], string)[]
        {
            (["list"], "there is no store of VDIs in"),
            (["create", "a b", "1G"], "'a b' is no name"),
            (["create", "web", "1000"], "cannot have 1000 bytes"),
            (["create", "web", "256T"], "128T at most"),
            (["create", "web"], "give its size"),
            (["list", "--store", $"file:{Scratch}"], "is no store of VDIs, and is not empty"),
            (["list", "--store", "tape:0"], "is of no kind that this program knows"),
            (["list", "--store", "rados:vdi?cnf=/a"], "unknown option cnf"),
            (["list", "--store", "rados:vdi?conf=a"], "is not an absolute path"),
            (["list", "--store", $"rados:vdi?conf={Scratch}/no.conf"], "no configuration of Ceph can be read"),
        })
        {
            Assert.That(await RefusedAsync(command), Does.Contain(refusal));
        }

        await VdiAsync("create", "web", "8M");
        await VdiAsync("snapshot", "web", "one");
        await MakeGuestAsync(5);
        foreach ((string target, bool isWritable, string refusal) in new (string, bool, string)[]
        {
            (TargetOf("nobody"), true, "there is no VDI nobody"),
            (TargetOf("web@two"), false, "has no snapshot two"),
            (TargetOf("web@one"), true, "is a snapshot, which is never written"),
            ($"vdi:web?store=file:{Scratch}", true, "is no store of VDIs"),
            (TargetOf("../web"), true, "'../web' is no name"),
        })
        {
            ToolstackException? failure = Assert.ThrowsAsync<ToolstackException>(
                () => Toolstack.AttachAsync(5, Disk(target, isWritable)));
            Assert.That(failure!.Message, Does.Contain(refusal));
            await Toolstack.DetachAsync(5, Disk(target, isWritable));
        }
    }
}
