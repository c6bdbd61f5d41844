using System.Diagnostics;
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
/// VDIs in a pool, and commands that work on them and are stopped, killed or refused before any of their operations.
/// </summary>
public abstract class RadosStopFixture
{
    /// <summary>Bytes of each VDI.</summary>
    protected const int Size = 1 << 20;

    /// <summary>Bytes that the command <c>write</c> writes.</summary>
    protected const int Piece = 64 << 10;

    private readonly byte[] _early = Make('e'), _late = Make('l');
    private string _pool = "";
    private long _lastDisk = 1 << 20;

    /// <summary>How long anything may take.</summary>
    protected static TimeSpan Patience { get; } = TimeSpan.FromMinutes(1);

    /// <summary>The content of v.</summary>
    protected byte[] Other { get; } = Make('o');

    /// <summary>What the command <c>write</c> writes.</summary>
    protected byte[] Written { get; } = Make('w')[..Piece];

    private string StoreText => $"rados:{_pool}?conf={OneNodeCeph.Configuration}";

    [OneTimeSetUp]
    public async Task MakePool() => _pool = await OneNodeCeph.MakePoolAsync();

    private static byte[] Make(char letter)
    {
        byte[] content = new byte[Size];
        new Random(letter).NextBytes(content);
        return content;
    }

    protected async Task<int> CountAsync(string command)
    {
        await PrepareAsync();
        StoppedProcess process = new((_, _) => false);
        await StartAsync(command, process).WaitAsync(Patience);
        await CheckAsync();
        return process.Count;
    }

    protected async Task<int> CountAsync(string command, string name)
    {
        StoppedProcess process = new((_, _) => false);
        Assert.That(await StartAsync(command, process, name).WaitAsync(Patience), Is.Null);
        return process.Count;
    }

    // Two VDIs with snapshots, and a third that was deleted and not collected.
    protected async Task PrepareAsync()
    {
        await RunRadosAsync("purge", _pool, "--yes-i-really-really-mean-it");
        using Worker worker = new("test");
        using VdiAdmin vdis = VdiAdmin.Open(StoreText, true, worker, Opening);
        foreach ((string name, string snapshot, byte[] content) in new[]
        {
            ("w", "s", _early), ("v", "t", Other), ("u", "s", Other),
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
    private protected Task<string?> StartAsync(string command, StoppedProcess? process, string name = "w") =>
        StartWithAsync(command, process is null ? null : process.Before, name);

    /// <summary>The same; an action is called before each operation.</summary>
    protected Task<string?> StartWithAsync(string command, Action<string>? before, string name = "w") =>
        Task.Run(async () =>
    {
        RadosPool.BeforeEach.Value = before;
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

    /// <summary>The names of all objects of the pool.</summary>
    protected async Task<string[]> ListAsync() => (await RunRadosAsync("-p", _pool, "ls")).Split('\n');

    /// <summary>Opens the store, as a command does.</summary>
    protected VdiAdmin OpenStore(Worker worker) => VdiAdmin.Open(StoreText, false, worker, Opening);

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
            case "write": await WriteAsync(worker, name, Written); break;
            case "read":
                byte[] read = await ReadAsync(worker, "w@s", Size);
                Assert.That(read.AsSpan().SequenceEqual(_early), "other data was read");
                break;
            default: throw new ArgumentException(command);
        }
    }

    // As time takes the leases, and as who proves that a writer is silent takes its lock.
    protected void LoseLocks()
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
        if (pool.GetAttribute(first, "epoch\0"u8) is not byte[] text)
        {
            RadosLocks.Break(pool, first, "writer", locker); // it is being made again
            return;
        }

        string epoch = Encoding.ASCII.GetString(text);
        byte[] next = Encoding.ASCII.GetBytes($"{Convert.ToUInt64(epoch, 16) + 1:x16}");
        using RadosWrite write = new RadosWrite().BreakLock("writer", locker).SetAttribute("epoch\0"u8, next);
        pool.Change(first, write);
    }

    // All that is there is whole, and is what it should be.
    protected async Task CheckAsync()
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
                "w" => [_late, _early, [.. Written, .. _late[Piece..]], [.. Written, .. _early[Piece..]]],
                "v" => [Other, [.. Written, .. Other[Piece..]]],
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

    // Nothing is left in the pool that nobody would ever find.
    protected async Task CheckStraysAsync()
    {
        using (Worker worker = new("check"))
        using (VdiAdmin vdis = VdiAdmin.Open(StoreText, false, worker, Opening))
            await vdis.CollectAsync();
        using RadosPool pool = OpenPool();
        HashSet<string> known = [.. pool.GetKeys(new RadosName("vdi.store"), "vdi.").Select(pair => pair.Key)];
        string[] strays =
        [
            .. (await ListAsync())
                .Where(name => name.StartsWith("vdi.", StringComparison.Ordinal) && name.Length > "vdi.000000".Length
                    && !name.StartsWith("vdi.store", StringComparison.Ordinal)
                    && !known.Contains(name[.."vdi.000000".Length])),
        ];
        Assert.That(strays, Is.Empty, "objects that nobody knows");
    }

    protected async Task WriteAsync(Worker worker, string name, byte[] content)
    {
        IBlockImage image = VdiOpener.Open(TargetOf(name), Opening(false));
        await using (image)
        {
            if (await WriteAsync(worker, image, content) != BlockStatus.Okay)
                throw new IOException("the write was refused");
        }
    }

    protected static Task<BlockStatus> WriteAsync(Worker worker, IBlockImage image, byte[] content)
    {
        Memory<byte> data = PinnedMemory.AllocatePages(content.Length);
        content.CopyTo(data);
        return worker.InvokeAsync(
            () => new ImageAccess(image).RunAsync(BlockOperation.Write, 0, data.Length, data).AsTask());
    }

    protected async Task<byte[]> ReadAsync(Worker worker, string name, int length)
    {
        IBlockImage image = VdiOpener.Open(TargetOf(name), Opening(true));
        await using (image)
        {
            (BlockStatus status, byte[] content) = await ReadAsync(worker, image, length);
            return status == BlockStatus.Okay ? content : throw new IOException("the read failed");
        }
    }

    protected static async Task<(BlockStatus Status, byte[] Content)> ReadAsync(
        Worker worker, IBlockImage image, int length)
    {
        Memory<byte> data = PinnedMemory.AllocatePages(length);
        BlockStatus status = await worker.InvokeAsync(
            () => new ImageAccess(image).RunAsync(BlockOperation.Read, 0, length, data).AsTask());
        return (status, data.ToArray());
    }

    protected BlockTarget TargetOf(string name) => BlockTarget.Parse($"vdi:{name}?store={StoreText.Replace('?', '&')}");

    protected RadosPool OpenPool() =>
        RadosPool.Open(new RadosAddress(_pool, OneNodeCeph.Configuration, null), waitsIfFull: false);

    protected ImageOpening Opening(bool isReadOnly) => new(
        "the test", Interlocked.Increment(ref _lastDisk), isReadOnly, true, null, TestContext.Out.WriteLine);

    protected static async Task<string> RunRadosAsync(params string[] arguments)
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
