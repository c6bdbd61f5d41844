using System.Globalization;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Parallax;

/// <summary>
/// Every file, link and block of a store is damaged in turn, after its processes were killed: each read gives the right
/// data or an error, and never other data. What cannot be read, the check reports.
/// </summary>
public sealed class VdiDamageTests : VdiFixture
{
    private const int DiskSize = 64 << 10;
    private const int Unflushed = 5 * 4096; // the block that was written after the last flush

    private static readonly string[] Disks = ["web", "web@a", "web@b", "twin", "twin@t"];

    private readonly Dictionary<string, byte[]> _contents = [];
    private readonly SortedDictionary<string, int[]> _table = new(StringComparer.Ordinal);
    private byte[] _before = [];

    [Test]
    public Task Any_damage_is_an_error_or_has_no_effect() => DamageAsync(isEverything: false);

    [Test]
    [Explicit("takes minutes: prints the table of docs/PARALLAX-FORMAT.md")]
    public Task Any_damage_at_all_is_an_error_or_has_no_effect() => DamageAsync(isEverything: true);

    private async Task DamageAsync(bool isEverything)
    {
        DamagedStore store = await MakeAsync();
        store.Restore(null);
        Assert.That(Check(), Is.Zero, "nothing is damaged yet");
        Assert.That(await ReadAllAsync(null), Is.Zero);
        int number = 0;
        foreach (StoreDamage damage in store.FindAll())
        {
            // Of the blocks of logs and maps, which are many, a sample: each in one way.
            bool isSampled = damage.Block < 1024 || (int)damage.Kind == damage.Block % 4;
            if (isEverything || isSampled) await TryAsync(store, damage, writes: isEverything || number++ % 3 == 0);
        }

        foreach ((string row, int[] counts) in _table)
            TestContext.Out.WriteLine(string.Create(
                CultureInfo.InvariantCulture, $"| {row} | {counts[0]} | {counts[1]} | {counts[2]} | {counts[3]} |"));
        int[] sums = [.. Enumerable.Range(0, 4).Select(column => _table.Values.Sum(counts => counts[column]))];
        Assert.That(sums, Has.All.GreaterThan(5), "all outcomes occur");
    }

    private async Task TryAsync(DamagedStore store, StoreDamage damage, bool writes)
    {
        store.Restore(damage);
        Warnings.Clear();
        long reported = Check();
        int failed = await ReadAllAsync(damage);
        Assert.That(failed == 0 || reported > 0, $"{damage}: errors that the check does not report");
        int[] counts = _table.TryGetValue($"{damage.Where} | {damage.Kind}", out int[]? known)
            ? known
            : _table[$"{damage.Where} | {damage.Kind}"] = new int[4];
        counts[failed > 0 ? 0 : reported > 0 ? 1 : 2]++;
        if (!writes) return;
        await WriteAsync(damage);
        if (failed > 0 || reported == 0) return;
        // What has a second copy is whole again after a repair.
        store.Restore(damage);
        Vdis.RepairStore(Warnings.Add);
        foreach (string name in Vdis.Names) await Vdis.RepairAsync(name, Warnings.Add).WaitAsync(Soon);
        Assert.That(Check(), Is.Zero, $"{damage}: after a repair");
        Assert.That(await ReadAllAsync(damage), Is.Zero, $"{damage}: after a repair");
        counts[3]++;
    }

    // Opens for writing, which must not hide the damage either.
    private async Task WriteAsync(StoreDamage damage)
    {
        byte[] block = [.. Enumerable.Repeat((byte)0xAB, 4096)];
        try
        {
            ImageDriver disk = Open("web");
            await HoldsOrFailsAsync("web", disk, damage);
            await disk.WriteAsync(Unflushed, block);
            await disk.FlushAsync();
            await disk.Image.DisposeAsync();
            disk = Open("web", isReadOnly: true);
            Assert.That((await disk.ReadAsync(Unflushed, 4096)).AsSpan().SequenceEqual(block), $"{damage}: the write");
            await HoldsOrFailsAsync("web", disk, damage, except: Unflushed);
            await disk.Image.DisposeAsync();
        }
        catch (TargetException)
        {
            return; // refused
        }

        foreach (string name in Disks.Skip(1)) await ReadAsync(name, damage);
    }

    private async Task<int> ReadAllAsync(StoreDamage? damage)
    {
        int failed = 0;
        foreach (string name in Disks) failed += await ReadAsync(name, damage);
        return failed;
    }

    private async Task<int> ReadAsync(string name, StoreDamage? damage)
    {
        ImageDriver disk;
        try
        {
            disk = Open(name, isReadOnly: true);
        }
        catch (TargetException refusal)
        {
            Assert.That(refusal.Message, Does.Not.Contain("\n").And.Length.GreaterThan(20));
            return 1;
        }

        await using (disk.Image) return await HoldsOrFailsAsync(name, disk, damage);
    }

    private async Task<int> HoldsOrFailsAsync(string name, ImageDriver disk, StoreDamage? damage, int except = -1)
    {
        byte[] expected = _contents[name], block = new byte[4096];
        int failed = 0;
        for (int at = 0; at < DiskSize; at += block.Length)
        {
            if (at == except) continue;
            if (await disk.TryReadAsync(at, block) != BlockStatus.Okay) failed = 1;
            else if (!block.AsSpan().SequenceEqual(expected.AsSpan(at, 4096))
                && !(name == "web" && at == Unflushed && block.AsSpan().SequenceEqual(_before)))
                Assert.Fail($"{damage}: byte {at} of {name} is other data");
        }

        return failed;
    }

    private long Check()
    {
        try
        {
            return Vdis.Check(null, true, Warnings.Add).Damages;
        }
        catch (TargetException refusal)
        {
            Warnings.Add(refusal.Message);
            return 1;
        }
    }

    // Two VDIs, of which one is a clone, with snapshots, with and without checkpoints; then both processes die.
    private async Task<DamagedStore> MakeAsync()
    {
        DamagedStore store = new(Folder);
        Random random = new(1);
        Create("web", DiskSize);
        ImageDriver web = Open("web");
        byte[] shadow = new byte[DiskSize];
        await FillAsync(web, shadow, random);
        await SnapshotAsync(web, "a");
        _contents["web@a"] = [.. shadow];
        await CheckpointAsync(web);
        await FillAsync(web, shadow, random);
        Vdis.Clone("web@a", "twin");
        ImageDriver twin = Open("twin");
        byte[] other = [.. _contents["web@a"]];
        await FillAsync(twin, other, random);
        await SnapshotAsync(twin, "t");
        _contents["twin@t"] = [.. other];
        await SettleAsync(web, twin);
        store.TakeOlder();

        await FillAsync(web, shadow, random);
        await SnapshotAsync(web, "b");
        _contents["web@b"] = [.. shadow];
        await FillAsync(web, shadow, random);
        await FillAsync(twin, other, random);
        _contents["twin"] = [.. other];
        await SettleAsync(web, twin);
        _before = shadow[Unflushed..(Unflushed + 4096)];
        random.NextBytes(shadow.AsSpan(Unflushed, 4096));
        await web.WriteAsync(Unflushed, shadow[Unflushed..(Unflushed + 4096)]);
        _contents["web"] = [.. shadow];
        await AbandonAsync(web);
        await AbandonAsync(twin);
        store.TakeNow();
        return store;
    }

    private static async Task FillAsync(ImageDriver disk, byte[] shadow, Random random)
    {
        for (int i = 0; i < 4; i++)
        {
            int at = random.Next(DiskSize / 4096 - 2) * 4096;
            random.NextBytes(shadow.AsSpan(at, 8192));
            await disk.WriteAsync(at, shadow[at..(at + 8192)]);
        }

        await disk.FlushAsync();
    }

    private async Task SettleAsync(params ImageDriver[] disks)
    {
        foreach (ImageDriver disk in disks)
        {
            await OnAsync(async () =>
            {
                await Parts(disk).Mark.SettleAsync();
                return true;
            });
        }
    }
}
