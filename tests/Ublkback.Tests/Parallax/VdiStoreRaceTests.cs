using System.Reflection;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Parallax.Admin;
using Ublkback.Parallax.Collect;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Handlers;
using Ublkback.Parallax.Stores;
using Ublkback.Tests.Images;
using TargetException = Ublkback.Block.TargetException;

namespace Ublkback.Tests.Parallax;

/// <summary>
/// What a command has decided is still true when it does it, whatever other commands do between; and what does not
/// belong in a store stops none.
/// </summary>
public sealed class VdiStoreRaceTests : VdiFixture
{
    [Test]
    public async Task A_vdi_that_is_cloned_and_deleted_during_a_collection_stays_for_its_clone()
    {
        Create("base", 4 * MiB);
        ImageDriver disk = Open("base");
        await using (disk.Image) await disk.WriteAsync(0, Filled(1));
        await Vdis.SnapshotAsync("base", "s");
        IVdiStore store = Interrupt("OpenOther", async () =>
        {
            Create("new", 4 * MiB);
            ImageDriver other = Open("new");
            await using (other.Image) await other.WriteAsync(0, Filled(7));
            await Vdis.SnapshotAsync("new", "s");
            Vdis.Clone("new@s", "clone");
            await Vdis.DeleteAsync("new", withSnapshots: true);
        }); // after the names were read
        await new Collector(store, Warnings.Add).RunAsync([], withUnnamed: true);

        ImageDriver clone = Open("clone", isReadOnly: true);
        await using (clone.Image) Assert.That(await clone.ReadAsync(0, MiB), Is.All.EqualTo(7));
        await new Collector(Store, Warnings.Add).RunAsync([], withUnnamed: true);
        clone = Open("clone", isReadOnly: true);
        await using (clone.Image) Assert.That(await clone.ReadAsync(0, MiB), Is.All.EqualTo(7));
    }

    [TestCase("Pin")]
    [TestCase("OpenOther")]
    public async Task A_snapshot_that_is_deleted_while_it_is_opened_is_not_opened(string between)
    {
        Create("a", 4 * MiB);
        await Vdis.SnapshotAsync("a", "s");
        IVdiStore store = Interrupt(between, () => Vdis.DeleteSnapshotAsync("a", "s"));
        Assert.That(
            () => VdiOpener.Open(store, new VdiName("a", "s"), "none", Reading()),
            Throws.TypeOf<TargetException>().With.Message.Contains("has no snapshot s"));
    }

    [Test]
    public async Task A_snapshot_that_is_open_is_not_deleted_and_afterwards_it_is()
    {
        Create("a", 4 * MiB);
        await Vdis.SnapshotAsync("a", "s");
        IBlockImage open = OpenImage("a@s", isReadOnly: true);
        Assert.That(
            () => Vdis.DeleteSnapshotAsync("a", "s"), Throws.TypeOf<TargetException>().With.Message.Contains("in use"));
        Assert.That(
            () => Vdis.DeleteAsync("a", withSnapshots: true),
            Throws.TypeOf<ImageInUseException>().With.Message.Contains("a@s is in use"));
        await open.DisposeAsync();
        await Vdis.DeleteSnapshotAsync("a", "s");
        await Vdis.DeleteAsync("a", withSnapshots: false);
    }

    [Test]
    public async Task A_snapshot_that_is_deleted_before_a_rollback_is_not_rolled_back_to()
    {
        Create("a", 4 * MiB);
        ImageDriver disk = Open("a");
        ((VdiImage)disk.Image).UseOn(Worker);
        await SnapshotAsync(disk, "s");
        IVdiStore store = Interrupt("LockStructure", () => Vdis.DeleteSnapshotAsync("a", "s"));
        VdiHolder holder = new(store, (VdiImage)disk.Image, Warnings.Add, IsInUse: true);
        Assert.That(
            () => RollbackHandler.Instance.RunAsync(new RollbackRequest("s", IsLive: true), holder).WaitAsync(Soon),
            Throws.TypeOf<TargetException>().With.Message.Contains("has no snapshot s"));
        await disk.Image.DisposeAsync();
    }

    [TestCase("Find", 2)]
    [TestCase("TryAskAsync", 2)]
    [TestCase("ReadState", 3)]
    [TestCase("IsWritten", 2)]
    [TestCase("OpenOther", 2)]
    public async Task A_vdi_that_is_deleted_during_a_collection_is_left_out(string between, int times)
    {
        foreach (string name in new[] { "a", "b", "c" }) Create(name, 4 * MiB);
        IVdiStore store = Interrupt(between, DeleteAsync, times);
        Assert.That(await new StoreCollection(store, Worker, Writing()).RunAsync().WaitAsync(Soon), Is.Not.Negative);
        Assert.That(Vdis.Names, Is.EqualTo(new[] { "a", "c" }));

        async Task DeleteAsync()
        {
            await Vdis.DeleteAsync("b", withSnapshots: false);
            await Vdis.CollectDeletedAsync();
        }
    }

    [TestCase("Find", 2)]
    [TestCase("OpenOther", 2)]
    [TestCase("IsWritten", 2)]
    public async Task A_vdi_that_is_deleted_during_a_check_is_no_damage(string between, int times)
    {
        foreach (string name in new[] { "a", "b", "c" })
        {
            Create(name, 4 * MiB);
            ImageDriver disk = Open(name);
            await using (disk.Image) await disk.WriteAsync(0, Filled(1));
        }

        IVdiStore store = Interrupt(between, () => Vdis.DeleteAsync("b", withSnapshots: false), times);
        VdiCheck check = await Task.Run(() => new VdiChecker(store, true, Warnings.Add).Run(null)).WaitAsync(Soon);
        Assert.That((check.Damages, Warnings), Is.EqualTo((0, Array.Empty<string>())));
        Assert.That(Vdis.Check("b", true, Warnings.Add).Damages, Is.EqualTo(1), "it was asked for");
    }

    [TestCase("LockStructure", false)]
    [TestCase("TryOpenToCollect", false)]
    [TestCase("TryOpenToCollect", true)]
    public async Task A_guest_gets_its_disk_while_the_store_is_collected(string between, bool closes)
    {
        Create("a", 32 * MiB);
        ImageDriver disk = Open("a");
        await using (disk.Image)
        {
            for (byte i = 1; i < 30; i++) await disk.WriteAsync(i % 8 * MiB, Filled(i));
        }

        ImageDriver? guest = null;
        IVdiStore store = Interrupt(
            between,
            async () =>
            {
                guest = Open("a");
                for (byte i = 31; i < 34; i++) await guest.WriteAsync(i % 8 * MiB, Filled(i));
                if (closes) await guest.Image.DisposeAsync();
            });
        Assert.That(await new StoreCollection(store, Worker, Writing()).RunAsync().WaitAsync(Soon), Is.Zero);
        Assert.That(guest, Is.Not.Null);
        if (closes) guest = Open("a");
        await guest!.WriteAsync(8 * MiB, Filled(99));
        await guest.Image.DisposeAsync();
        Assert.That(Vdis.Check(null, true, Warnings.Add).Damages, Is.Zero);
        Assert.That(await Vdis.CollectAsync().WaitAsync(Soon), Is.GreaterThan(15 * MiB));
        disk = Open("a");
        byte[] expected = [32, 33, 26, 27, 28, 29, 22, 31, 99];
        for (int i = 0; i < expected.Length; i++)
            Assert.That((await disk.ReadAsync(i * MiB, MiB)).AsSpan().SequenceEqual(Filled(expected[i])), $"MiB {i}");
        await disk.Image.DisposeAsync();
    }

    [Test]
    public async Task What_does_not_belong_in_a_store_stops_nothing()
    {
        Create("web", 4 * MiB);
        string[] strays = ["names/.nfs0001", "names/web~", "vdi/cafe", "vdi/lost+found"];
        foreach (string stray in strays.SkipLast(1)) await File.WriteAllTextAsync(Path.Combine(Folder, stray), "");
        Directory.CreateDirectory(Path.Combine(Folder, strays[^1]));
        File.CreateSymbolicLink(Path.Combine(Folder, "names", ".#web"), "somebody@somewhere");

        Assert.That(Vdis.Names, Is.EqualTo(new[] { "web" }));
        Assert.That(Vdis.Strays, Is.EquivalentTo(strays.Append("names/.#web").Select(stray => $"{Folder}/{stray}")));
        Assert.That(await Vdis.CollectAsync(), Is.Not.Negative);
        Assert.That(Vdis.Check(null, readsData: true, Warnings.Add).Damages, Is.Zero);
        await Vdis.DeleteAsync("web", withSnapshots: false);
        await Vdis.CollectDeletedAsync();
        Assert.That(
            strays.SkipLast(1).Select(stray => Path.Combine(Folder, stray)), Has.All.Matches<string>(File.Exists));
    }

    [Test]
    public async Task A_store_without_the_folder_of_copies_is_used_and_repaired()
    {
        Create("web", 4 * MiB);
        ImageDriver disk = Open("web");
        await using (disk.Image) await disk.WriteAsync(0, Filled(1));
        Directory.Delete(Path.Combine(Folder, "copies"), recursive: true);
        Vdis.RepairStore(Warnings.Add);
        Directory.Delete(Path.Combine(Folder, "copies"), recursive: true);
        disk = Open("web");
        await using (disk.Image) Assert.That(await disk.ReadAsync(0, MiB), Is.All.EqualTo(1));
        Create("other", 4 * MiB);
        Vdis.RepairStore(Warnings.Add);
        Assert.That(Vdis.Check(null, readsData: true, Warnings.Add).Damages, Is.Zero);
    }

    private ImageOpening Writing() => new("the test", 98, false, true, null, Warnings.Add);

    private static ImageOpening Reading() => new("the test", 99, true, true, null, _ => { });

    private static byte[] Filled(byte value)
    {
        byte[] bytes = new byte[MiB];
        bytes.AsSpan().Fill(value);
        return bytes;
    }

    // Other commands do something just before a call of the store.
    private IVdiStore Interrupt(string method, Func<Task> action, int times = 1)
    {
        IVdiStore store = DispatchProxy.Create<IVdiStore, InterruptedStore>();
        InterruptedStore interrupted = (InterruptedStore)store;
        (interrupted.Store, interrupted.Method, interrupted.Action, interrupted.Times) = (Store, method, action, times);
        return store;
    }

#pragma warning disable CA1852 // a proxy is a subclass
    internal class InterruptedStore : DispatchProxy
    {
        public required IVdiStore Store { get; set; }

        public string Method { get; set; } = "";

        public Func<Task> Action { get; set; } = () => Task.CompletedTask;

        public int Times { get; set; }

        protected override object? Invoke(MethodInfo? targetMethod, object?[]? args)
        {
            if (targetMethod!.Name == Method && --Times == 0) Task.Run(Action).GetAwaiter().GetResult();
            try
            {
                return targetMethod.Invoke(Store, args);
            }
            catch (TargetInvocationException failure)
            {
                throw failure.InnerException!;
            }
        }
    }
#pragma warning restore CA1852
}
