using System.Diagnostics;
using System.Globalization;
using System.Text;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.HostTests.Fixtures;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;
using Ublkback.Parallax.Admin;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.HostTests.Formats;

/// <summary>
/// A process that works on VDIs in a pool is stopped before any of its operations, until all its locks are lost and
/// another has gone on. Then it goes on too: it must change nothing, and say so.
/// </summary>
public sealed class RadosStopTests
{
    private const int Size = 1 << 20;
    private const int Piece = 64 << 10;
    private const int Places = 2; // to stop at, in each run others, or it takes long
    private const int MorePlaces = 6; // for what is most delicate
    private const int AllPlaces = 150; // a collection looks at each object

    // UBLKBACK_STOP_SEED repeats a run.
    private static readonly int Seed = int.Parse(
        Environment.GetEnvironmentVariable("UBLKBACK_STOP_SEED") ?? $"{Environment.TickCount & 0xffff}",
        CultureInfo.InvariantCulture);

    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(1);

    private static readonly string[] Commands =
    [
        "clone", "create", "delete", "delete-snapshot", "snapshot", "gc", "rollback", "resize", "compact", "fsck",
        "repair", "write", "read",
    ];

    private readonly byte[] _early = Make('e'), _late = Make('l'), _other = Make('o');
    private readonly byte[] _written = Make('w')[..Piece];

    private string _pool = "";
    private long _lastDisk = 1 << 20;

    private string StoreText => $"rados:{_pool}?conf={OneNodeCeph.Configuration}";

    [OneTimeSetUp]
    public async Task MakePool()
    {
        TestContext.Out.WriteLine($"UBLKBACK_STOP_SEED={Seed}");
        _pool = await OneNodeCeph.MakePoolAsync();
    }

    [TestCaseSource(nameof(Commands))]
    public async Task Who_was_stopped_and_lost_its_locks_changes_nothing(string stopped)
    {
        int count = await CountAsync(stopped);
        // Each stop with another command, so that in the end each command is beside each.
        int step = Math.Max(1, count / Places), first = Array.IndexOf(Commands, stopped);
        for (int at = 1 + (Seed % step), other = first + Seed; at <= count; at += step, other++)
            await TryAsync(stopped, at, Commands[other % Commands.Length]);
    }

    [Test]
    [Explicit("takes long: all pairs of commands, and all places to stop")]
    public async Task Who_was_stopped_anywhere_changes_nothing()
    {
        foreach (string stopped in Commands)
        {
            int count = await CountAsync(stopped);
            foreach (string other in Commands)
            {
                for (int at = 1; at <= count; at += 1 + (count / AllPlaces)) await TryAsync(stopped, at, other);
            }
        }
    }

    [Test]
    public async Task A_clone_of_a_snapshot_that_is_gone_is_not_made()
    {
        int count = await CountAsync("clone");
        int step = Math.Max(1, count / MorePlaces);
        for (int at = 1 + (Seed % step); at <= count; at += step) await TryAsync("clone", at, "destroy");
    }

    // Somebody begins to use a VDI or a snapshot while who deletes it is stopped: not both go on.
    [TestCase("delete", "v", false)]
    [TestCase("delete", "v@t", true)]
    [TestCase("delete-snapshot", "w@s", true)]
    public async Task What_somebody_uses_is_not_deleted(string command, string used, bool isReadOnly)
    {
        int count = await CountAsync(command), uses = 0;
        int step = Math.Max(1, count / MorePlaces);
        for (int at = 1 + (Seed % step); at <= count; at += step)
        {
            await PrepareAsync();
            StoppedProcess process = new((number, _) => number == at);
            Task<string?> running = StartAsync(command, process);
            if (await Task.WhenAny((Task)running, process.Stopped).WaitAsync(Patience) == running) continue;
            string where = $"{command} before operation {at} ({await process.Stopped})";
            using Worker worker = new("user");
            IBlockImage? image = null;
            try
            {
                LoseLocks();
                image = await Task.Run(() => VdiOpener.Open(TargetOf(used), Opening(isReadOnly)));
            }
            catch (TargetException refusal)
            {
                where += $", {used} was not opened: {refusal.Message}";
            }
            finally
            {
                process.GoOn();
            }

            string? deleted = await running.WaitAsync(Patience);
            TestContext.Out.WriteLine($"{where}: {deleted ?? "done"}");
            if (image is null) continue;
            uses++;
            await using (image)
            {
                Assert.That(deleted, Is.Not.Null, $"{where}: what is used was deleted");
                if (isReadOnly) Assert.That(await StartAsync("gc", null), Is.Null);
                BlockStatus status = isReadOnly
                    ? (await ReadAsync(worker, image, Size)).Status
                    : await WriteAsync(worker, image, _other);
                Assert.That(status, Is.EqualTo(BlockStatus.Okay), where);
            }

            await CheckAsync();
        }

        Assert.That(uses, Is.Positive);
    }

    [Test]
    public async Task Who_lost_the_lock_before_it_raised_the_epoch_takes_nothing()
    {
        await PrepareAsync();
        StoppedProcess process = new((_, operation) => operation == "change vdi.000001.00000000");
        Task<string?> running = StartAsync("snapshot", process);
        await process.Stopped.WaitAsync(Patience);
        LoseLocks();
        using Worker worker = new("other");
        IBlockImage image = await Task.Run(() => VdiOpener.Open(TargetOf("w"), Opening(false)));
        image.UseOn(worker);
        await using (image)
        {
            process.GoOn();
            // It asks the other, which makes the snapshot, or it ends.
            Assert.That(
                await running.WaitAsync(Patience), Is.Null.Or.Contains("was given to another process"));
            Assert.That(await WriteAsync(worker, image, _written), Is.EqualTo(BlockStatus.Okay));
        }

        await CheckAsync();
    }

    [Test]
    public async Task A_holder_that_lives_again_while_who_replaces_it_is_stopped_is_not_replaced()
    {
        await PrepareAsync();
        StoppedProcess holder = new((_, _) => false);
        using Worker worker = new("holder");
        IBlockImage image = await Task.Run(() =>
        {
            RadosPool.BeforeEach.Value = holder.Before;
            return VdiOpener.Open(TargetOf("w"), Opening(false));
        });
        await using (image)
        {
            holder.Stop();
            int changes = 0; // the warning, and the eviction
            StoppedProcess other = new((_, operation) => operation == "change vdi.000001.00000000" && ++changes == 2);
            Task<string?> replacing = StartAsync("break", other);
            await other.Stopped.WaitAsync(Patience);
            using RadosPool pool = OpenPool();
            Assert.That(pool.GetAttribute(new RadosName("vdi.000001.00000000"), "warning\0"u8), Is.Not.Empty);
            holder.GoOn();
            // it is not told when it looks
            while (pool.GetAttribute(new RadosName("vdi.000001.00000000"), "warning\0"u8) is { Length: > 0 })
                await Task.Delay(10);
            other.GoOn();
            Assert.That(await replacing.WaitAsync(Patience), Does.Contain("which answers again"));
            Assert.That(await WriteAsync(worker, image, _written), Is.EqualTo(BlockStatus.Okay));
        }

        await CheckAsync();
    }

    [Test]
    public async Task What_is_known_of_a_VDI_takes_as_many_questions_whatever_its_size()
    {
        await PrepareAsync();
        int small = await CountAsync("describe", "w");
        using (Worker worker = new("test"))
        {
            using VdiAdmin vdis = VdiAdmin.Open(StoreText, false, worker, Opening);
            vdis.Create("large", 64 << 20);
            await WriteAsync(worker, "large", new byte[32 << 20].Select((_, at) => (byte)(at / 4096 + 1)).ToArray());
            Assert.That(vdis.Describe("large").AllocatedBytes, Is.GreaterThan(32 << 20).And.LessThan(64 << 20));
        }

        Assert.That(await CountAsync("describe", "large"), Is.AtMost(small).And.LessThan(30));
    }

    private static byte[] Make(char letter)
    {
        byte[] content = new byte[Size];
        new Random(letter).NextBytes(content);
        return content;
    }

    private async Task<int> CountAsync(string command)
    {
        await PrepareAsync();
        StoppedProcess process = new((_, _) => false);
        await StartAsync(command, process).WaitAsync(Patience);
        await CheckAsync();
        return process.Count;
    }

    private async Task<int> CountAsync(string command, string name)
    {
        StoppedProcess process = new((_, _) => false);
        Assert.That(await StartAsync(command, process, name).WaitAsync(Patience), Is.Null);
        return process.Count;
    }

    private async Task TryAsync(string stopped, int at, string other)
    {
        await PrepareAsync();
        StoppedProcess process = new((number, _) => number == at);
        Task<string?> running = StartAsync(stopped, process);
        string where = $"{stopped} before operation {at}, then {other}";
        if (await Task.WhenAny((Task)running, process.Stopped).WaitAsync(Patience) == running)
        {
            await running;
            return; // it took another way this time
        }

        where += $" ({await process.Stopped})";
        string? first, second;
        try
        {
            LoseLocks();
            second = await StartAsync(other, null).WaitAsync(Patience);
        }
        finally
        {
            process.GoOn();
        }

        first = await running.WaitAsync(Patience);
        where += $": {first ?? "done"}; {second ?? "done"}";
        TestContext.Out.WriteLine(where);
        try
        {
            await CheckAsync();
            CheckClaims(stopped, first, other, second);
            await CheckStraysAsync();
        }
        catch (Exception failure) when (failure is AssertionException or TargetException)
        {
            throw new AssertionException($"{where}: {failure.Message}", failure);
        }
    }

    // Two VDIs with snapshots, and a third that was deleted and not collected.
    private async Task PrepareAsync()
    {
        await RunRadosAsync("purge", _pool, "--yes-i-really-really-mean-it");
        using Worker worker = new("test");
        using VdiAdmin vdis = VdiAdmin.Open(StoreText, true, worker, Opening);
        foreach ((string name, string snapshot, byte[] content) in new[]
        {
            ("w", "s", _early), ("v", "t", _other), ("u", "s", _other),
        })
        {
            vdis.Create(name, Size);
            await WriteAsync(worker, name, content);
            await vdis.SnapshotAsync(name, snapshot);
        }

        await WriteAsync(worker, "w", _late);
        await vdis.DeleteAsync("u", withSnapshots: true);
    }

    // Gives what it was refused by; null when it was done.
    private Task<string?> StartAsync(string command, StoppedProcess? process, string name = "w") => Task.Run(async () =>
    {
        RadosPool.BeforeEach.Value = process is null ? null : process.Before;
        try
        {
            using Worker worker = new(command);
            using VdiAdmin vdis = VdiAdmin.Open(StoreText, false, worker, Opening);
            await RunAsync(command, vdis, worker, name);
            return null;
        }
        catch (Exception failure) when (failure is TargetException or IOException or InvalidDataException)
        {
            return failure.Message;
        }
    });

    private async Task RunAsync(string command, VdiAdmin vdis, Worker worker, string name)
    {
        switch (command)
        {
            case "clone": vdis.Clone("w@s", "c"); break;
            case "create": vdis.Create("n", Size); break;
            case "destroy":
                await vdis.DeleteSnapshotAsync("w", "s");
                await WriteAsync(worker, "w", _late);
                await vdis.CollectAsync();
                break;
            case "delete": await vdis.DeleteAsync("v", withSnapshots: true); break;
            case "delete-snapshot": await vdis.DeleteSnapshotAsync("w", "s"); break;
            case "snapshot": await vdis.SnapshotAsync("w", "x"); break;
            case "gc": await vdis.CollectAsync(); break;
            case "rollback": await vdis.RollBackAsync("w@s", false); break;
            case "resize": await vdis.ResizeAsync("w", 2 * Size); break;
            case "compact": await vdis.CompactAsync("w"); break;
            case "fsck":
                List<string> damages = [];
                // A deletion that is half done, or was done meanwhile, is no damage of a VDI.
                _ = vdis.Check(null, true, damages.Add);
                if (!damages.All(damage => damage.Contains("store: key ") || damage.Contains("there is no VDI v ")))
                    Assert.Fail($"whole VDIs were called damaged: {string.Join("; ", damages)}");
                break;
            case "break": vdis.BreakLock(name); break;
            case "describe": vdis.Describe(name); break;
            case "repair": vdis.RepairStore(_ => { }); break;
            case "write": await WriteAsync(worker, "w", _written); break;
            case "read":
                byte[] read = await ReadAsync(worker, "w@s", Size);
                Assert.That(read.AsSpan().SequenceEqual(_early), "other data was read");
                break;
            default: throw new ArgumentException(command);
        }
    }

    // As time takes the leases, and as who proves that a writer is silent takes its lock.
    private void LoseLocks()
    {
        using RadosPool pool = OpenPool();
        RadosName store = new("vdi.store");
        foreach (string name in new[] { "structure", "collection" })
        {
            foreach (RadosLocker locker in RadosLocks.List(pool, store, name).Lockers)
                RadosLocks.Break(pool, store, name, locker);
        }

        for (int vdi = 1; vdi <= 4; vdi++)
        {
            RadosName first = new($"vdi.{vdi:x6}.00000000");
            if (pool.Measure(first) < 0) continue;
            foreach (string name in new[] { "snapshot.1", "snapshot.2", "writer" })
            {
                (IReadOnlyList<RadosLocker> lockers, bool isExclusive) = RadosLocks.List(pool, first, name);
                foreach (RadosLocker locker in lockers)
                {
                    if (name != "writer" || !isExclusive) RadosLocks.Break(pool, first, name, locker);
                    else Evict(pool, first, locker);
                }
            }
        }
    }

    private static void Evict(RadosPool pool, RadosName first, RadosLocker locker)
    {
        string epoch = Encoding.ASCII.GetString(pool.GetAttribute(first, "epoch\0"u8)!);
        byte[] next = Encoding.ASCII.GetBytes($"{Convert.ToUInt64(epoch, 16) + 1:x16}");
        using RadosWrite write = new RadosWrite().BreakLock("writer", locker).SetAttribute("epoch\0"u8, next);
        pool.Change(first, write);
    }

    // All that is there is whole, and is what it should be.
    private async Task CheckAsync()
    {
        using Worker worker = new("check");
        using VdiAdmin vdis = VdiAdmin.Open(StoreText, false, worker, Opening);
        vdis.RepairStore(_ => { });
        List<string> damages = [];
        vdis.Check(null, true, damages.Add);
        Assert.That(damages, Is.Empty);
        foreach (string name in vdis.Names)
        {
            byte[] content = await ReadAsync(worker, name, Size);
            byte[][] expected = name switch
            {
                "w" => [_late, _early, [.. _written, .. _late[Piece..]], [.. _written, .. _early[Piece..]]],
                "v" => [_other],
                "c" => [_early],
                _ => [new byte[Size]],
            };
            Assert.That(expected.Any(one => one.AsSpan().SequenceEqual(content)), $"{name} has other data");
            foreach (VdiSnapshotInfo snapshot in vdis.Describe(name).Snapshots)
            {
                content = await ReadAsync(worker, $"{name}@{snapshot.Name}", Size);
                byte[][] then = snapshot.Name == "s" ? [_early] : expected;
                Assert.That(
                    then.Any(one => one.AsSpan().SequenceEqual(content)), $"{name}@{snapshot.Name} has other data");
            }
        }
    }

    // What was said to be done is done, and what was refused is not.
    private void CheckClaims(string stopped, string? first, string other, string? second)
    {
        using Worker worker = new("check");
        using VdiAdmin vdis = VdiAdmin.Open(StoreText, false, worker, Opening);
        string[] names = [.. vdis.Names];
        bool IsDone(string command) => (stopped == command && first is null) || (other == command && second is null);
        Assert.That(names.Contains("c"), Is.EqualTo(IsDone("clone")), "c");
        Assert.That(names.Contains("n"), Is.EqualTo(IsDone("create")), "n");
        Assert.That(names.Contains("v"), Is.EqualTo(!IsDone("delete")), "v");
        string[] snapshots = [.. vdis.Describe("w").Snapshots.Select(snapshot => snapshot.Name)];
        if (IsDone("delete-snapshot") || IsDone("destroy")) Assert.That(snapshots, Does.Not.Contain("s"));
        if (IsDone("snapshot")) Assert.That(snapshots, Does.Contain("x"));
    }

    // Nothing is left in the pool that nobody would ever find.
    private async Task CheckStraysAsync()
    {
        using (Worker worker = new("check"))
        using (VdiAdmin vdis = VdiAdmin.Open(StoreText, false, worker, Opening))
            await vdis.CollectAsync();
        using RadosPool pool = OpenPool();
        HashSet<string> known = [.. pool.GetKeys(new RadosName("vdi.store"), "vdi.").Select(pair => pair.Key)];
        string[] strays =
        [
            .. (await RunRadosAsync("-p", _pool, "ls")).Split('\n')
                .Where(name => name.StartsWith("vdi.", StringComparison.Ordinal) && name.Length > "vdi.000000".Length
                    && !name.StartsWith("vdi.store", StringComparison.Ordinal)
                    && !known.Contains(name[.."vdi.000000".Length])),
        ];
        Assert.That(strays, Is.Empty, "objects that nobody knows");
    }

    private async Task WriteAsync(Worker worker, string name, byte[] content)
    {
        IBlockImage image = VdiOpener.Open(TargetOf(name), Opening(false));
        await using (image)
        {
            if (await WriteAsync(worker, image, content) != BlockStatus.Okay)
                throw new IOException("the write was refused");
        }
    }

    private static Task<BlockStatus> WriteAsync(Worker worker, IBlockImage image, byte[] content)
    {
        Memory<byte> data = PinnedMemory.AllocatePages(content.Length);
        content.CopyTo(data);
        return worker.InvokeAsync(
            () => new ImageAccess(image).RunAsync(BlockOperation.Write, 0, data.Length, data).AsTask());
    }

    private async Task<byte[]> ReadAsync(Worker worker, string name, int length)
    {
        IBlockImage image = VdiOpener.Open(TargetOf(name), Opening(true));
        await using (image)
        {
            (BlockStatus status, byte[] content) = await ReadAsync(worker, image, length);
            return status == BlockStatus.Okay ? content : throw new IOException("the read failed");
        }
    }

    private static async Task<(BlockStatus Status, byte[] Content)> ReadAsync(
        Worker worker, IBlockImage image, int length)
    {
        Memory<byte> data = PinnedMemory.AllocatePages(length);
        BlockStatus status = await worker.InvokeAsync(
            () => new ImageAccess(image).RunAsync(BlockOperation.Read, 0, length, data).AsTask());
        return (status, data.ToArray());
    }

    private BlockTarget TargetOf(string name) => BlockTarget.Parse($"vdi:{name}?store={StoreText.Replace('?', '&')}");

    private RadosPool OpenPool() =>
        RadosPool.Open(new RadosAddress(_pool, OneNodeCeph.Configuration, null), waitsIfFull: false);

    private ImageOpening Opening(bool isReadOnly) => new(
        "the test", Interlocked.Increment(ref _lastDisk), isReadOnly, true, null, TestContext.Out.WriteLine);

    private static async Task<string> RunRadosAsync(params string[] arguments)
    {
        using Process process = Process.Start(
            new ProcessStartInfo("rados", ["-c", OneNodeCeph.Configuration, .. arguments])
            {
                RedirectStandardOutput = true,
            })!;
        string output = await process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync();
        Assert.That(process.ExitCode, Is.Zero, string.Join(' ', arguments));
        return output;
    }
}
