using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Parallax;

/// <summary>VDIs that are damaged, and repaired: what can be known is there, and nothing else is said to be.</summary>
public sealed class VdiRepairTests : VdiFixture
{
    private const int DiskSize = 8 * MiB;
    private const int LeafSize = MapRoot.Fanout * VdiFormat.BlockSize;

    private readonly List<string> _said = [];

    private string Path => Store.PathOf(Store.Find("web"));

    private string CopyPath => System.IO.Path.Combine(Folder, "copies", "000001");

    [SetUp]
    public void Forget() => _said.Clear();

    [Test]
    public async Task A_damaged_leaf_is_given_up_and_the_rest_goes_on()
    {
        byte[] shadow = await MakeAsync(0);
        ImageDriver disk = Open("web");
        await SnapshotAsync(disk, "s");
        await disk.Image.DisposeAsync();
        await Vdis.CollectAsync().WaitAsync(Soon); // both heads say the same now
        Damage(LeafOf(3).Block);
        Assert.That(CheckDamages(), Is.EqualTo(1));
        Assert.ThrowsAsync<TargetException>(() => Vdis.CollectAsync().WaitAsync(Soon));
        await RepairAsync();
        Assert.That(
            _said,
            Has.Count.EqualTo(1).And.Some.Contain($"256 blocks of 4 KiB from byte {3 * LeafSize} on are given up"));
        Assert.That(CheckDamages(), Is.EqualTo(1), "lost blocks of the disk; those of the snapshot are the same");
        await Vdis.CollectAsync().WaitAsync(Soon);

        disk = Open("web");
        byte[] lost = new byte[4096];
        foreach (string name in new[] { "web", "web@s" })
        {
            ImageDriver version = name == "web" ? disk : Open(name, isReadOnly: true);
            await HoldsAsync(version, shadow[..(3 * LeafSize)], $"what is before, in {name}");
            Assert.That((await version.ReadAsync(4 * LeafSize, 4 * LeafSize)).AsSpan()
                .SequenceEqual(shadow.AsSpan(4 * LeafSize)), $"what is behind, in {name}");
            Assert.That(await version.TryReadAsync(3 * LeafSize, lost), Is.EqualTo(BlockStatus.IoError));
            if (version != disk) await version.Image.DisposeAsync();
        }

        Assert.That(Warnings, Has.Some.Contain("given up by 'ublkback vdi fsck --repair'"));
        Assert.That(
            await disk.TryWriteAsync(3 * LeafSize, new byte[512]), Is.EqualTo(BlockStatus.IoError),
            "the rest of the block is not known");
        await disk.WriteAsync(3 * LeafSize, shadow[(3 * LeafSize)..(4 * LeafSize)]);
        await disk.Image.DisposeAsync();
        disk = Open("web");
        await HoldsAsync(disk, shadow, "all was written again");
        await disk.Image.DisposeAsync();
    }

    [Test]
    public async Task What_the_last_checkpoint_wrote_is_found_again_in_the_log()
    {
        byte[] shadow = await MakeAsync(1);
        ImageDriver disk = Open("web");
        await SnapshotAsync(disk, "s");
        byte[] kept = [.. shadow];
        await disk.WorkAsync(shadow, new Random(2), 100);
        await disk.Image.DisposeAsync();
        Damage(Read().Head.Content.Root.Node.Address.Block);
        Damage(Read().Head.Table.Address.Block);
        Assert.That(CheckDamages(), Is.EqualTo(1), "the table, without which the VDI is not opened at all");
        await RepairAsync();
        Assert.That(_said, Has.Count.EqualTo(1).And.Some.Contain("nothing is lost"));
        Assert.That(CheckDamages(), Is.Zero);
        await HoldsBothAsync(shadow, kept);
    }

    [Test]
    public async Task A_damaged_head_is_made_again([Values] bool isNewer)
    {
        byte[] shadow = await MakeAsync(3);
        ImageDriver disk = Open("web");
        await SnapshotAsync(disk, "s");
        byte[] kept = [.. shadow];
        await disk.WorkAsync(shadow, new Random(4), 100);
        await disk.Image.DisposeAsync();
        long newer = Read().Head.Block;
        Damage(isNewer ? newer : (2 * VdiFormat.FirstHeadBlock) + 1 - newer);
        Assert.That(CheckDamages(), Is.EqualTo(1));
        await RepairAsync();
        Assert.That(_said, Has.Count.EqualTo(1).And.Some.Contain("is damaged or too old; its copy has the same"));
        Assert.That(CheckDamages(), Is.Zero);
        await HoldsBothAsync(shadow, kept);
    }

    [Test]
    public async Task A_log_that_is_damaged_ends_there()
    {
        byte[] shadow = await MakeAsync(5);
        ImageDriver disk = Open("web");
        byte[] first = Block(1), second = Block(2), third = Block(3);
        await disk.WriteAsync(0, first);
        await SnapshotAsync(disk, "s");
        await disk.WriteAsync(4096, second);
        await disk.FlushAsync();
        await disk.WriteAsync(8192, third);
        await SnapshotAsync(disk, "late");
        await AbandonAsync(disk);
        byte[] file = await File.ReadAllBytesAsync(Path);
        Damage(file.AsSpan().IndexOf(second) / 4096);
        Assert.Throws<TargetException>(() => OpenImage("web"));
        await RepairAsync();
        Assert.That(_said, Has.Count.EqualTo(1).And.Some.Contain("what was written last is given up"));
        Assert.That(CheckDamages(), Is.Zero);
        first.CopyTo(shadow, 0);
        await HoldsBothAsync(shadow, shadow);
        Assert.Throws<TargetException>(() => OpenImage("web@late", isReadOnly: true));
    }

    [Test]
    public async Task Without_their_table_the_snapshots_are_lost_and_the_disk_is_not()
    {
        byte[] shadow = await MakeAsync(6);
        ImageDriver disk = Open("web");
        await SnapshotAsync(disk, "s");
        await disk.Image.DisposeAsync();
        await Vdis.CollectAsync().WaitAsync(Soon);
        Damage(Read().Head.Table.Address.Block);
        await RepairAsync();
        Assert.That(_said, Has.Count.EqualTo(1).And.Some.Contain("the 1 snapshots are given up"));
        Assert.That(CheckDamages(), Is.Zero);
        disk = Open("web");
        await HoldsAsync(disk, shadow, "repaired");
        await SnapshotAsync(disk, "s");
        await disk.Image.DisposeAsync();
        Assert.That(Vdis.Describe("web").Snapshots, Has.Count.EqualTo(1));
    }

    [Test]
    public async Task A_vdi_in_use_and_one_of_which_nothing_is_left_are_refused()
    {
        await MakeAsync(7);
        ImageDriver disk = Open("web");
        Assert.That(Assert.ThrowsAsync<ImageInUseException>(RepairAsync)!.Message, Does.Contain("is in use by"));
        await disk.Image.DisposeAsync();
        Damage(1);
        Damage(2);
        File.Delete(CopyPath);
        byte[] before = await File.ReadAllBytesAsync(Path);
        Assert.That(Assert.ThrowsAsync<TargetException>(RepairAsync)!.Message, Does.Contain("both heads"));
        byte[] after = await File.ReadAllBytesAsync(Path);
        after.AsSpan((int)VdiFormat.OffsetOf(VdiFormat.HolderBlock), 4096)
            .CopyTo(before.AsSpan((int)VdiFormat.OffsetOf(VdiFormat.HolderBlock)));
        Assert.That(after.AsSpan().SequenceEqual(before), "nothing is changed");
    }

    [Test]
    public async Task Whatever_is_damaged_a_repair_never_makes_other_data_of_it([Values(1, 2)] int seed)
    {
        const int Tries = 12;
        byte[] shadow = await MakeAsync(seed);
        Random random = new(seed);
        ImageDriver disk = Open("web");
        await disk.WorkAsync(shadow, random, 60);
        await SnapshotAsync(disk, "s");
        byte[] kept = [.. shadow];
        await CheckpointAsync(disk);
        await disk.WorkAsync(shadow, random, 60);
        await disk.FlushAsync();
        await disk.WriteAsync(0, shadow[..4096]);
        await AbandonAsync(disk);
        byte[] whole = await File.ReadAllBytesAsync(Path), copy = await File.ReadAllBytesAsync(CopyPath);
        int[] used = [.. Enumerable.Range(0, whole.Length / 4096)
            .Where(block => whole.AsSpan(block * 4096, 4096).ContainsAnyExcept((byte)0))];
        int repaired = 0;
        for (int i = 0; i < Tries; i++)
        {
            byte[] damaged = [.. whole];
            // What is not data is rare, and what was written last.
            damaged[(used[random.Next(2) == 0 ? random.Next(used.Length) : ^(1 + random.Next(40))] * 4096)
                + random.Next(4096)] ^= 1;
            await File.WriteAllBytesAsync(Path, damaged);
            await File.WriteAllBytesAsync(CopyPath, copy);
            Forget();
            Warnings.Clear();
            await RepairAsync();
            repaired += _said.Count > 0 ? 1 : 0;
            disk = Open("web");
            bool isCut = _said.Exists(line => line.Contains("written last is given up", StringComparison.Ordinal));
            await HoldsOrFailsAsync(disk, shadow, isCut ? kept : shadow);
            await SnapshotHoldsOrFailsAsync(kept);
            await disk.WriteAsync(0, shadow);
            await HoldsAsync(disk, shadow, "when all was written again");
            await disk.Image.DisposeAsync();
        }

        Assert.That(repaired, Is.Positive);
    }

    private async Task SnapshotHoldsOrFailsAsync(byte[] kept)
    {
        try
        {
            ImageDriver snapshot = Open("web@s", isReadOnly: true);
            await using (snapshot.Image) await HoldsOrFailsAsync(snapshot, kept, kept);
        }
        catch (TargetException refusal)
        {
            Assert.That(refusal.Message, Does.Contain("is missing or damaged"));
        }
    }

    private static async Task HoldsOrFailsAsync(ImageDriver disk, byte[] expected, byte[] older)
    {
        byte[] block = new byte[4096];
        for (int at = 0; at < DiskSize; at += block.Length)
        {
            if (await disk.TryReadAsync(at, block) != BlockStatus.Okay) continue;
            Assert.That(
                block.AsSpan().SequenceEqual(expected.AsSpan(at, block.Length)) || older != expected,
                $"byte {at} is other data");
        }
    }

    private static byte[] Block(byte value) => [.. Enumerable.Repeat(value, 4096)];

    // A VDI all of whose blocks were written, in nodes and none in the log.
    private async Task<byte[]> MakeAsync(int seed)
    {
        Create("web", DiskSize);
        byte[] shadow = new byte[DiskSize];
        new Random(seed).NextBytes(shadow);
        ImageDriver disk = Open("web");
        await disk.WriteAsync(0, shadow);
        await disk.Image.DisposeAsync();
        return shadow;
    }

    private async Task HoldsBothAsync(byte[] now, byte[] kept)
    {
        ImageDriver disk = Open("web");
        await HoldsAsync(disk, now, "the disk");
        ImageDriver snapshot = Open("web@s", isReadOnly: true);
        await HoldsAsync(snapshot, kept, "the snapshot");
        await snapshot.Image.DisposeAsync();
        await disk.WorkAsync(now, new Random(99), 50);
        await disk.Image.DisposeAsync();
        disk = Open("web");
        await HoldsAsync(disk, now, "the disk, when it was written");
        await disk.Image.DisposeAsync();
    }

    private Task RepairAsync() => Vdis.RepairAsync("web", _said.Add).WaitAsync(Soon);

    private long CheckDamages() => Vdis.Check(null, true, Warnings.Add).Damages;

    private VdiMetadata Read()
    {
        (IVdiContainer container, _) = Store.OpenOther(1, Warnings.Add);
        VdiMetadata file = VdiMetadata.Read(container);
        container.DisposeAsync().AsTask().GetAwaiter().GetResult();
        return file;
    }

    private BlockAddress LeafOf(int leaf)
    {
        using FileStream file = File.OpenRead(Path);
        file.Position = VdiFormat.OffsetOf(Read().Head.Content.Root.Node.Address.Block);
        byte[] root = new byte[4096];
        file.ReadExactly(root);
        return MapEntry.Read(root, leaf).Address;
    }

    private void Damage(long block)
    {
        using FileStream file = new(Path, FileMode.Open);
        file.Position = VdiFormat.OffsetOf(block) + 100;
        int was = file.ReadByte();
        file.Position--;
        file.WriteByte((byte)~was);
    }
}
