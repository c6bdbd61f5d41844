using System.Globalization;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.HostTests.Fixtures;
using Ublkback.HostTests.Model;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;
using Ublkback.Parallax.Admin;
using Ublkback.Rados.Pools;

namespace Ublkback.HostTests.Formats;

/// <summary>
/// Every object, block, key and attribute of a small store in a pool is damaged in turn, after its processes were
/// killed: each read gives the right data or an error, and never other data. What cannot be read, the check reports.
/// UBLKBACK_DAMAGE_ALL=1 takes all damages; without it, the test takes a sample, and all older versions of whole
/// objects.
/// </summary>
public sealed class RadosDamageTableTests : VdiFixture
{
    private const int Sectors = 512;
    private const int Sample = 17; // one of so many damages
    private const int Late = 8; // the first sector that the test of writing writes

    private static readonly string[] Disks = ["web", "web@a", "web@b", "twin", "twin@t"];

    private static readonly bool IsEverything =
        Environment.GetEnvironmentVariable("UBLKBACK_DAMAGE_ALL") is { Length: > 0 };

    private readonly Dictionary<string, long[]> _contents = [];
    private readonly SortedDictionary<string, int[]> _table = new(StringComparer.Ordinal);
    private readonly Random _random = new(Environment.TickCount);
    private Worker _worker = null!;
    private RadosPool _objects = null!;
    private string _pool = "";
    private long _lastDisk = 1 << 20;
    private long _lastToken;

    [SetUp]
    public async Task MakePool()
    {
        _pool = await OneNodeCeph.MakePoolAsync();
        StoreOption = $"rados:{_pool}?conf={OneNodeCeph.Configuration}";
        _worker = new Worker("test");
        _objects = RadosPool.Open(new RadosAddress(_pool, OneNodeCeph.Configuration, null), false);
    }

    [TearDown]
    public void ClosePool()
    {
        _objects.Dispose();
        _worker.Dispose();
    }

    [Test]
    public async Task Any_damage_is_an_error_or_has_no_effect()
    {
        DamagedPool store = await MakeAsync();
        await store.RestoreAsync();
        Assert.That((Check(), await ReadAllAsync("no damage")), Is.EqualTo((0, 0)), "nothing is damaged yet");
        int number = _random.Next(Sample), tried = 0;
        List<string> wrong = [];
        foreach (PoolDamage damage in store.FindAll())
        {
            bool isTaken = IsEverything || damage.Harm == PoolHarm.AllOlder || number++ % Sample == 0;
            if (!isTaken) continue;
            tried++;
            try
            {
                await TryAsync(store, damage);
            }
            catch (Exception failure) when (failure is not OperationCanceledException)
            {
                wrong.Add($"{damage}: {failure.GetType().Name}: {failure.Message}");
                await store.RestoreAsync();
            }
        }

        TestContext.Out.WriteLine($"{tried} damages of {store.Count} objects");
        foreach ((string row, int[] counts) in _table)
            TestContext.Out.WriteLine($"| {row} | {string.Join(" | ", counts.Select(
                count => count.ToString(CultureInfo.InvariantCulture)))} |");
        Assert.That(wrong, Is.Empty, string.Join('\n', wrong));
    }

    private async Task TryAsync(DamagedPool store, PoolDamage damage)
    {
        store.Damage(damage);
        long reported = Check();
        int failed = await ReadAllAsync($"{damage}");
        if (failed > 0 && reported == 0) throw new ModelException("errors that the check does not report");
        int[] counts = _table.TryGetValue(damage.Row, out int[]? known) ? known : _table[damage.Row] = new int[4];
        counts[failed > 0 ? 0 : reported > 0 ? 1 : 2]++;
        store.Undo(damage);
        if (_random.Next(3) == 0)
        {
            store.Damage(damage);
            await WriteAsync(damage);
            await store.RestoreAsync();
        }

        if (failed > 0 || reported == 0) return;
        // What has a second copy is whole again after a repair.
        store.Damage(damage);
        await RepairAsync();
        long left = Check();
        failed = await ReadAllAsync($"{damage}, repaired");
        await store.RestoreAsync();
        if (left > 0 || failed > 0) throw new ModelException($"after a repair, {left} damages, {failed} errors");
        counts[3]++;
    }

    // Opens for writing, which must not hide the damage either.
    private async Task WriteAsync(PoolDamage damage)
    {
        long token = ++_lastToken;
        long[] before = _contents["web"];
        try
        {
            IBlockImage image = VdiOpener.Open(BlockTarget.Parse(TargetOf("web")), Opening(false));
            await using (image)
            {
                Memory<byte> data = PinnedMemory.AllocatePages(8 * SectorPattern.Size);
                SectorPattern.Fill(data.Span, token, Late);
                BlockStatus status = await RunAsync(image, BlockOperation.Write, Late * SectorPattern.Size, data);
                if (status != BlockStatus.Okay) return;
            }

            _contents["web"] = [.. before[..Late], .. Enumerable.Repeat(token, 8), .. before[(Late + 8)..]];
            await ReadAllAsync($"{damage}, written");
        }
        catch (TargetException)
        {
            // It was refused.
        }
        finally
        {
            _contents["web"] = before;
        }
    }

    private async Task RepairAsync()
    {
        using VdiAdmin vdis = VdiAdmin.Open(StoreOption, false, _worker, Opening);
        vdis.RepairStore(_ => { });
        foreach (string name in vdis.Names) await vdis.RepairAsync(name, _ => { }).WaitAsync(Soon);
    }

    private long Check()
    {
        try
        {
            using VdiAdmin vdis = VdiAdmin.Open(StoreOption, false, _worker, Opening);
            return vdis.Check(null, true, _ => { }).Damages;
        }
        catch (TargetException)
        {
            return 1;
        }
    }

    // Returns how many of the disks cannot be read.
    private async Task<int> ReadAllAsync(string where)
    {
        int failed = 0;
        foreach (string name in Disks) failed += await ReadAsync(name, where);
        return failed;
    }

    private async Task<int> ReadAsync(string name, string where)
    {
        IBlockImage image;
        try
        {
            image = VdiOpener.Open(BlockTarget.Parse(TargetOf(name)), Opening(true));
        }
        catch (TargetException refusal)
        {
            Assert.That(refusal.Message, Does.Not.Contain("\n").And.Length.GreaterThan(20));
            return 1;
        }

        await using (image)
        {
            Memory<byte> data = PinnedMemory.AllocatePages(Sectors * SectorPattern.Size);
            bool isWhole = await RunAsync(image, BlockOperation.Read, 0, data) == BlockStatus.Okay;
            HashSet<int> unread = [];
            for (int at = 0; at < Sectors && !isWhole; at += 8)
            {
                Memory<byte> block = data.Slice(at * SectorPattern.Size, 8 * SectorPattern.Size);
                if (await RunAsync(image, BlockOperation.Read, at * SectorPattern.Size, block) != BlockStatus.Okay)
                    unread.Add(at / 8);
            }

            long[] found = SectorPattern.Read(data.Span);
            for (int at = 0; at < Sectors; at++)
            {
                if (found[at] != _contents[name][at] && !unread.Contains(at / 8))
                    throw new ModelException($"sector {at} of {name} is other data ({where})");
            }

            return isWhole ? 0 : 1;
        }
    }

    private Task<BlockStatus> RunAsync(IBlockImage image, BlockOperation operation, long offset, Memory<byte> data) =>
        _worker.InvokeAsync(() => new ImageAccess(image).RunAsync(operation, offset, data.Length, data).AsTask());

    // Two VDIs, of which one is a clone, with snapshots, with and without checkpoints; then both processes die.
    private async Task<DamagedPool> MakeAsync()
    {
        await VdiAsync("create", "web", $"{Sectors * SectorPattern.Size}");
        _contents["web"] = new long[Sectors];
        ModelHolder web = await StartAsync("web");
        await FillAsync(web, "web");
        await SnapshotAsync("web", "a");
        DamagedPool store = new(_objects, ListAsync);
        await store.TakeOlderAsync();
        await web.CloseAsync();
        await web.DisposeAsync();
        web = await StartAsync("web");
        await FillAsync(web, "web");
        await VdiAsync("clone", "web@a", "twin");
        _contents["twin"] = [.. _contents["web@a"]];
        ModelHolder twin = await StartAsync("twin");
        await FillAsync(twin, "twin");
        await SnapshotAsync("twin", "t");
        await store.TakeOlderAsync();

        await FillAsync(web, "web");
        await SnapshotAsync("web", "b");
        await FillAsync(web, "web");
        await FillAsync(twin, "twin");
        await Task.Delay(500); // until both have written their marks, which nobody is told of
        await web.KillAsync();
        await twin.KillAsync();
        await store.TakeNowAsync();
        await web.DisposeAsync();
        await twin.DisposeAsync();
        return store;
    }

    private async Task FillAsync(ModelHolder holder, string name)
    {
        for (int i = 0; i < 4; i++)
        {
            int first = 16 + _random.Next(Sectors - 40); // not where the test of writing writes
            byte[] data = new byte[24 * SectorPattern.Size];
            SectorPattern.Fill(data, ++_lastToken, first);
            Assert.That(await holder.Client.WriteAsync(first, data), Is.EqualTo(NbdResult.Done));
            _contents[name].AsSpan(first, 24).Fill(_lastToken);
        }
    }

    private async Task SnapshotAsync(string name, string snapshot)
    {
        await VdiAsync("snapshot", name, snapshot);
        _contents[$"{name}@{snapshot}"] = [.. _contents[name]];
    }

    private Task<ModelHolder> StartAsync(string name) => ModelHolder.StartAsync(
        Program, TargetOf(name), Path.Combine(Scratch, $"nbd{_lastDisk++}"), _ => { });

    private async Task<string[]> ListAsync()
    {
        string listed = await RunOtherAsync("rados", "-c", OneNodeCeph.Configuration, "-p", _pool, "ls");
        Assert.That(listed, Does.StartWith("0:"));
        return listed[2..].Split('\n', StringSplitOptions.RemoveEmptyEntries);
    }

    private ImageOpening Opening(bool isReadOnly) =>
        new("the test", Interlocked.Increment(ref _lastDisk), isReadOnly, true, null, _ => { });
}
