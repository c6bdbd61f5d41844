using System.Globalization;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.HostTests.Fixtures;
using Ublkback.Linux.Workers;
using Ublkback.Parallax.Admin;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Pools;

namespace Ublkback.HostTests.Formats;

/// <summary>
/// Commands on VDIs in a pool that are killed, or fail, before any of their operations: what they leave is complete, or
/// the next collection removes it.
/// </summary>
public sealed class RadosKilledTests : RadosStopFixture
{
    private const int Failed = 5; // EIO
    private const int Places = 3; // to end at, in each run others
    private const int LastOnes = 8;

    // UBLKBACK_STOP_SEED repeats a run.
    private static readonly int Seed = int.Parse(
        Environment.GetEnvironmentVariable("UBLKBACK_STOP_SEED") ?? $"{Environment.TickCount & 0xffff}",
        CultureInfo.InvariantCulture);

    [OneTimeSetUp]
    public void SaySeed() => TestContext.Out.WriteLine($"UBLKBACK_STOP_SEED={Seed}");

    [Test]
    public async Task A_killed_deletion_is_ended_by_the_next_collection()
    {
        int count = await CountAsync("delete"), ended = 0;
        // What is most delicate is at the end: the name, its copy, the locks.
        foreach (int at in PlacesOf(count).Concat(Enumerable.Range(count - LastOnes, LastOnes)).Distinct())
        {
            await PrepareAsync();
            StoppedProcess process = new((number, _) => number == at);
            Task<string?> killed = StartAsync("delete", process);
            if (await Task.WhenAny((Task)killed, process.Stopped).WaitAsync(Patience) == killed) continue;
            string where = $"delete before operation {at} ({await process.Stopped})";
            LoseLocks();
            try
            {
                using (Worker worker = new("after"))
                using (VdiAdmin vdis = OpenStore(worker))
                {
                    List<string> faults = [];
                    _ = vdis.DescribeAll((name, failure) => faults.Add($"{name}: {failure.Message}"), Patience);
                    vdis.Check(null, true, faults.Add);
                    Assert.That(faults, Is.Empty, where);
                    if (vdis.Names.Contains("v")) await vdis.DeleteAsync("v", withSnapshots: true);
                    else ended++;
                    vdis.Create("v", Size);
                    vdis.Check(null, true, faults.Add);
                    Assert.That(faults, Is.Empty, $"{where}, and v was created again");
                    await vdis.CollectAsync();
                    vdis.Check(null, true, faults.Add);
                    Assert.That(faults, Is.Empty, $"{where}, and collected");
                    vdis.Describe("v");
                }

                Assert.That(await FindObjectsAsync("vdi.000002."), Is.Empty, where);
            }
            finally
            {
                process.GoOn();
                await killed.WaitAsync(Patience);
            }

            await CheckStraysAsync();
        }

        Assert.That(ended, Is.Positive, "a deletion was killed after the VDI had lost its name");
    }

    [Test]
    public async Task A_creation_that_fails_leaves_no_name_without_a_vdi([Values] bool isLasting)
    {
        int count = await CountAsync("create");
        await PrepareAsync();
        foreach (int at in PlacesOf(count).Concat(Enumerable.Range(count - LastOnes, LastOnes)).Distinct())
        {
            int number = 0;
            string where = $"create, {(isLasting ? "all" : "one")} from operation {at} on fails";
            string? failure = await StartWithAsync("create", operation =>
            {
                int now = Interlocked.Increment(ref number);
                if (now == at) where += $" ({operation})";
                if (isLasting ? now >= at : now == at) throw new RadosException(Failed, operation);
            }).WaitAsync(Patience);
            if (isLasting) LoseLocks();
            using (Worker worker = new("after"))
            using (VdiAdmin vdis = OpenStore(worker))
            {
                List<string> faults = [];
                bool isThere = vdis.Names.Contains("n");
                if (failure is null) Assert.That(isThere, where);
                // Between the name and its copy; the check says so, and repairs it.
                vdis.RepairStore(repaired => Assert.That(isThere && repaired.Contains("key name.n"), repaired));
                vdis.Check(null, true, faults.Add);
                Assert.That(faults, Is.Empty, where);
                if (isThere) await vdis.DeleteAsync("n", withSnapshots: false);
                vdis.Create("n", Size);
                await vdis.DeleteAsync("n", withSnapshots: false);
            }

            await CheckStraysAsync();
            Assert.That(await FindKeysAsync(), Is.EqualTo(new[] { "vdi.000001", "vdi.000002" }), where);
        }
    }

    [Test]
    public async Task The_last_number_can_be_used_and_then_a_creation_is_refused()
    {
        await PrepareAsync();
        foreach (string name in new[] { "vdi.store", "vdi.store.copy" })
        {
            using RadosPool pool = OpenPool();
            using RadosWrite write = new RadosWrite().SetKey("next", "ffffff");
            pool.Change(new RadosName(name), write);
        }

        Assert.That(await StartAsync("create", null), Is.Null);
        Assert.That(await StartAsync("clone", null), Does.Contain("has had as many VDIs as a store can"));
        await CheckAsync();
        using Worker worker = new("after");
        using VdiAdmin vdis = OpenStore(worker);
        await vdis.DeleteAsync("n", withSnapshots: false);
        await CheckStraysAsync();
        Assert.That(await FindObjectsAsync("vdi.ffffff."), Is.Empty);
    }

    // The VDI is restored, or deleted, by another process meanwhile.
    [Test]
    public async Task A_repair_that_lost_its_locks_brings_nothing_back([Values] bool isDeleted)
    {
        await PrepareAsync();
        Remove("vdi.000002.00000000");
        int count = 0, removed = 0;
        Assert.That(await StartWithAsync("repair", _ => Interlocked.Increment(ref count)), Is.Null);
        // The object is restored at the end.
        foreach (int at in PlacesOf(count).Concat(Enumerable.Range(count - LastOnes, LastOnes)).Distinct())
        {
            await PrepareAsync();
            Remove("vdi.000002.00000000");
            StoppedProcess process = new((number, _) => number == at);
            Task<string?> running = StartAsync("repair", process);
            if (await Task.WhenAny((Task)running, process.Stopped).WaitAsync(Patience) == running) break;
            string where = $"repair before operation {at} ({await process.Stopped})";
            try
            {
                LoseLocks();
                Assert.That(await StartAsync("repair", null), Is.Null, where);
                Assert.That(
                    await StartAsync(isDeleted ? "delete" : "write", null, isDeleted ? "w" : "v"), Is.Null, where);
                if (isDeleted) Assert.That(await StartAsync("gc", null), Is.Null, where);
                removed++;
            }
            finally
            {
                process.GoOn();
                await running.WaitAsync(Patience);
            }

            await CheckAsync();
            await CheckStraysAsync();
            if (isDeleted) Assert.That(await FindObjectsAsync("vdi.000002."), Is.Empty, where);
        }

        Assert.That(removed, Is.Positive);
    }

    [Test]
    public async Task An_older_version_of_the_names_brings_no_deleted_vdi_back([Values] bool isRepaired)
    {
        await PrepareAsync();
        using Worker worker = new("test");
        using VdiAdmin vdis = OpenStore(worker);
        using RadosPool pool = OpenPool();
        RadosName store = new("vdi.store");
        IReadOnlyList<KeyValuePair<string, string>> older = pool.GetKeys(store, "");
        await vdis.DeleteAsync("v", withSnapshots: true);
        using (RadosWrite write = new())
        {
            foreach (KeyValuePair<string, string> pair in pool.GetKeys(store, "")) write.RemoveKey(pair.Key);
            pool.Change(store, write);
        }

        using (RadosWrite write = new())
        {
            foreach (KeyValuePair<string, string> pair in older) write.SetKey(pair.Key, pair.Value);
            pool.Change(store, write);
        }

        Assert.That(vdis.Names, Is.EqualTo(new[] { "w" }));
        Assert.That(() => vdis.Describe("v"), Throws.InstanceOf<TargetException>());
        List<string> faults = [];
        vdis.Check(null, true, faults.Add);
        Assert.That(faults, Has.One.Contains("key name.v of object vdi.store"));
        if (isRepaired) vdis.RepairStore(_ => { });
        else await vdis.CollectAsync();
        faults.Clear();
        vdis.Check(null, true, faults.Add);
        Assert.That(faults, Is.Empty);
        await vdis.CollectAsync();
        Assert.That(await FindObjectsAsync("vdi.000002."), Is.Empty);
        Assert.That(vdis.Names, Is.EqualTo(new[] { "w" }));
    }

    [Test]
    public async Task Objects_that_could_not_be_removed_are_removed_by_the_next_collection()
    {
        await PrepareAsync();
        using (Worker worker = new("test"))
        using (VdiAdmin vdis = OpenStore(worker))
            await vdis.DeleteAsync("v", withSnapshots: true);
        string[] segments = [.. (await FindObjectsAsync("vdi.000002.")).Order(StringComparer.Ordinal)];
        Assert.That(segments, Has.Length.GreaterThan(2));
        string? failure = await StartWithAsync("gc", operation =>
        {
            if (operation == $"change {segments[1]}") throw new RadosException(Failed, operation);
        }).WaitAsync(Patience);
        Assert.That(failure, Does.Contain(segments[1]));
        Assert.That(await FindObjectsAsync("vdi.000002."), Does.Contain(segments[0]).And.Contain(segments[1]));
        Assert.That(await StartAsync("gc", null), Is.Null);
        Assert.That(await FindObjectsAsync("vdi.000002."), Is.Empty);
        await CheckStraysAsync();
    }

    [Test]
    public async Task Who_opens_a_vdi_that_is_deleted_meanwhile_leaves_nothing()
    {
        const int Opening = 40; // operations
        foreach (int at in PlacesOf(Opening))
        {
            await PrepareAsync();
            StoppedProcess process = new((number, _) => number == at);
            Task<string?> running = StartAsync("write", process, "v");
            if (await Task.WhenAny((Task)running, process.Stopped).WaitAsync(Patience) == running) break;
            string where = $"write before operation {at} ({await process.Stopped})";
            try
            {
                LoseLocks();
                Assert.That(await StartAsync("delete", null), Is.Null, where);
                Assert.That(await StartAsync("gc", null), Is.Null, where);
            }
            finally
            {
                process.GoOn();
                await running.WaitAsync(Patience);
            }

            Assert.That(await FindObjectsAsync("vdi.000002."), Is.Empty, where);
        }
    }

    [Test]
    public async Task A_vdi_that_nobody_has_open_is_collected_without_being_opened()
    {
        const int Large = 16 << 20;
        await PrepareAsync();
        using Worker worker = new("test");
        using VdiAdmin vdis = OpenStore(worker);
        vdis.Create("large", Large);
        byte[] content = new byte[Large];
        new Random(1).NextBytes(content);
        await WriteAsync(worker, "large", content);
        await vdis.SnapshotAsync("large", "s");
        vdis.Clone("large@s", "copy");
        new Random(2).NextBytes(content);
        await WriteAsync(worker, "large", content);
        await vdis.DeleteSnapshotAsync("large", "s");
        await vdis.CollectAsync();
        await vdis.DeleteAsync("copy", withSnapshots: false);
        long before = vdis.Describe("large").AllocatedBytes;
        string epoch = Epoch();
        Assert.That(await vdis.CollectAsync(), Is.GreaterThan(Large / 2), "what only the clone needed");
        Assert.That(Epoch(), Is.EqualTo(epoch), "the VDI was opened");
        Assert.That(vdis.Describe("large").AllocatedBytes, Is.LessThan(before - (Large / 2)));
        Assert.That((await ReadAsync(worker, "large", Large)).AsSpan().SequenceEqual(content));
        Assert.That(vdis.Check(null, true, TestContext.Out.WriteLine).Damages, Is.Zero);

        string Epoch()
        {
            using RadosPool pool = OpenPool();
            return Convert.ToHexString(pool.GetAttribute(new RadosName("vdi.000004.00000000"), "epoch\0"u8)!);
        }
    }

    private static IEnumerable<int> PlacesOf(int count)
    {
        int step = Math.Max(1, count / Places);
        for (int at = 1 + (Seed % step); at <= count; at += step) yield return at;
    }

    private void Remove(string name)
    {
        using RadosPool pool = OpenPool();
        using RadosWrite write = new RadosWrite().Remove();
        pool.Change(new RadosName(name), write);
    }

    private async Task<string[]> FindObjectsAsync(string prefix) =>
        [.. (await ListAsync()).Where(name => name.StartsWith(prefix, StringComparison.Ordinal))];

    private Task<string[]> FindKeysAsync() => Task.Run(() =>
    {
        using RadosPool pool = OpenPool();
        return pool.GetKeys(new RadosName("vdi.store"), "vdi.").Select(pair => pair.Key).ToArray();
    });
}
