using System.Globalization;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.HostTests.Fixtures;
using Ublkback.Linux.Workers;
using Ublkback.Parallax.Admin;
using Ublkback.Rados.Pools;

namespace Ublkback.HostTests.Formats;

/// <summary>
/// A process that works on VDIs in a pool is stopped before any of its operations, until all its locks are lost and
/// another has gone on. Then it goes on too: it must change nothing, and say so.
/// </summary>
public sealed class RadosStopTests : RadosStopFixture
{
    private const int Places = 2; // to stop at, in each run others, or it takes long
    private const int MorePlaces = 6; // for what is most delicate
    private const int AllPlaces = 150; // a collection looks at each object

    // UBLKBACK_STOP_SEED repeats a run.
    private static readonly int Seed = int.Parse(
        Environment.GetEnvironmentVariable("UBLKBACK_STOP_SEED") ?? $"{Environment.TickCount & 0xffff}",
        CultureInfo.InvariantCulture);

    private static readonly string[] Commands =
    [
        "clone", "create", "delete", "delete-snapshot", "snapshot", "gc", "rollback", "resize", "compact", "fsck",
        "repair", "write", "read",
    ];

    [OneTimeSetUp]
    public void SaySeed() => TestContext.Out.WriteLine($"UBLKBACK_STOP_SEED={Seed}");

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
                    : await WriteAsync(worker, image, Other);
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
            Assert.That(await WriteAsync(worker, image, Written), Is.EqualTo(BlockStatus.Okay));
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
            Assert.That(await WriteAsync(worker, image, Written), Is.EqualTo(BlockStatus.Okay));
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
            using VdiAdmin vdis = OpenStore(worker);
            vdis.Create("large", 64 << 20);
            await WriteAsync(worker, "large", new byte[32 << 20].Select((_, at) => (byte)(at / 4096 + 1)).ToArray());
            Assert.That(vdis.Describe("large").AllocatedBytes, Is.GreaterThan(32 << 20).And.LessThan(64 << 20));
        }

        Assert.That(await CountAsync("describe", "large"), Is.AtMost(small).And.LessThan(30));
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

    // What was said to be done is done, and what was refused is not.
    private void CheckClaims(string stopped, string? first, string other, string? second)
    {
        using Worker worker = new("check");
        using VdiAdmin vdis = OpenStore(worker);
        string[] names = [.. vdis.Names];
        bool IsDone(string command) => (stopped == command && first is null) || (other == command && second is null);
        Assert.That(names.Contains("c"), Is.EqualTo(IsDone("clone")), "c");
        Assert.That(names.Contains("n"), Is.EqualTo(IsDone("create")), "n");
        Assert.That(names.Contains("v"), Is.EqualTo(!IsDone("delete")), "v");
        string[] snapshots = [.. vdis.Describe("w").Snapshots.Select(snapshot => snapshot.Name)];
        if (IsDone("delete-snapshot") || IsDone("destroy")) Assert.That(snapshots, Does.Not.Contain("s"));
        if (IsDone("snapshot")) Assert.That(snapshots, Does.Contain("x"));
    }
}
