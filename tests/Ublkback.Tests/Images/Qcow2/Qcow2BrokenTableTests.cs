using System.Buffers.Binary;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Images.Qcow2;
using Ublkback.Images.Qcow2.Format;

namespace Ublkback.Tests.Images.Qcow2;

/// <summary>
/// Tables whose entries cannot be true: the request fails, the log has the reason, the image gets its corrupt bit, and
/// the guest's data stays.
/// </summary>
public sealed class Qcow2BrokenTableTests : Qcow2Fixture
{
    private const int Written = 200 << 10;

    [TestCase("a block of counts is not at a cluster's start")]
    [TestCase("a block of counts is behind the end of the file")]
    [TestCase("a block of counts is in the header")]
    [TestCase("a block of counts is where level 1 is")]
    [TestCase("a table is counted as free")]
    [TestCase("an entry of level 1 is not at a cluster's start")]
    [TestCase("an entry of level 1 is behind the end of the file")]
    [TestCase("an entry of level 1 has a reserved bit")]
    [TestCase("level 2 is where level 1 is")]
    public async Task An_impossible_entry_fails_the_write_and_marks_the_image(string what)
    {
        string path = MakeByQemu("a.qcow2", MiB, "-o", "refcount_bits=64,cluster_size=1k");
        Run("qemu-io", "-f", "qcow2", "-c", $"write -P 1 0 {Written}", path);
        Change(path, bytes => Break(bytes, what));

        bool isRead = !what.StartsWith("an entry", StringComparison.Ordinal)
            && !what.StartsWith("level", StringComparison.Ordinal);
        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image)
        {
            Assert.That(
                await disk.TryWriteAsync(isRead ? 300 << 10 : 512, [.. Enumerable.Repeat((byte)2, 20 << 10)]),
                Is.EqualTo(BlockStatus.IoError));
            if (isRead) Assert.That(await disk.ReadAsync(0, Written), Is.All.EqualTo(1));
        }

        Assert.That(Warnings, Has.Exactly(1).Contains("is broken"));
        Assert.That(Run("qemu-img", "info", path), Does.Contain("corrupt: true"));
        Assert.That(() => Open($"qcow2:{path}"), Throws.TypeOf<TargetException>());
        if (isRead)
            Assert.That(
                Run("qemu-io", "-r", "-f", "qcow2", "-c", $"read -P 1 0 {Written}", path),
                Does.Not.Contain("failed"));
    }

    [Test]
    public void A_size_that_no_sum_can_hold_is_refused()
    {
        string path = MakeByQemu("a.qcow2", MiB);
        Change(path, bytes => Put(bytes, 24, long.MaxValue & ~511ul));
        Assert.That(
            () => Open($"qcow2:{path}"),
            Throws.TypeOf<TargetException>().With.Message.Contains("needs larger clusters"));
    }

    [Test]
    public async Task A_write_never_goes_to_the_tables_of_a_snapshot(
        [Values("the table of snapshots", "level 1", "level 2")] string table)
    {
        string path = MakeByQemu("a.qcow2", MiB);
        Run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 128k", path);
        Run("qemu-img", "snapshot", "-c", "old", path);
        Run("qemu-io", "-f", "qcow2", "-c", "write -P 2 0 128k", path); // the disk has its own level 2 then
        int at = 0;
        byte[] before = [];
        Change(path, bytes =>
        {
            int snapshots = (int)Get(bytes, 64), l1 = (int)Get(bytes, snapshots);
            at = table switch
            {
                "level 1" => l1,
                "level 2" => (int)(Get(bytes, l1) & L2Entry.OffsetMask),
                _ => snapshots,
            };
            Put(bytes, L2Of(bytes), L2Entry.CopiedFlag | (uint)at);
            before = bytes[at..(at + 65536)];
        });
        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image)
        {
            Assert.That(await disk.TryWriteAsync(0, new byte[65536]), Is.EqualTo(BlockStatus.IoError));
            await disk.RunAsync(BlockOperation.Discard, 0, 65536, []);
            await disk.TryFlushAsync();
        }

        Assert.That(File.ReadAllBytes(path)[at..(at + 65536)], Is.EqualTo(before));
        Assert.That(Warnings, Has.Some.Contains("is broken"));
        Assert.That(Run("qemu-img", "info", path), Does.Contain("corrupt: true"));
    }

    [TestCase(false)]
    [TestCase(true)]
    public async Task A_discard_never_frees_a_table_that_an_entry_of_the_guest_points_to(bool isCompressed)
    {
        string path = MakeByQemu("a.qcow2", MiB);
        Run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 128k", path);
        byte[] before = [];
        Change(path, bytes =>
        {
            int l1 = L1Of(bytes);
            Put(bytes, L2Of(bytes), isCompressed ? (1ul << 62) | (uint)l1 : L2Entry.CopiedFlag | (uint)l1);
            before = bytes[l1..(l1 + 512)];
        });
        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image)
        {
            await disk.RunAsync(BlockOperation.Discard, 0, 65536, []);
            await disk.TryFlushAsync();
            await disk.TryFlushAsync();
        }

        byte[] bytes = File.ReadAllBytes(path);
        Assert.That(bytes[L1Of(bytes)..(L1Of(bytes) + 512)], Is.EqualTo(before));
        Assert.That(Warnings, Has.Exactly(1).Contains("is broken"));
    }

    [TestCase("missing")]
    [TestCase("not at a cluster's start")]
    [TestCase("behind the end of the file")]
    [TestCase("in the header")]
    [TestCase("where level 1 is")]
    public async Task A_repair_rebuilds_blocks_of_counts(string how)
    {
        string path = MakeByQemu("a.qcow2", MiB, "-o", "refcount_bits=64,cluster_size=1k");
        Run("qemu-io", "-f", "qcow2", "-c", $"write -P 1 0 {Written}", path);
        Change(path, bytes => Break(bytes, $"a block of counts is {how}"));
        Qcow2CheckReport report = Qcow2Tool.Check(path, repair: false, Opening());
        Assert.That((report.Errors, report.Unrepairable.Count), Is.EqualTo((report.Errors, 0)));
        Assert.That(report.Errors, Is.Positive);

        Qcow2Tool.Check(path, repair: true, Opening());

        report = Qcow2Tool.Check(path, repair: false, Opening());
        Assert.That((report.Leaks, report.Errors, report.Unrepairable.Count), Is.EqualTo((0L, 0L, 0)));
        byte[] shadow = new byte[MiB];
        shadow.AsSpan(0, Written).Fill(1);
        QemuAgrees(path, shadow);
        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image) await disk.WorkAsync(shadow, new Random(1), 100);
        QemuAgrees(path, shadow);
    }

    [TestCase(48, 0ul, "is at 0")]
    [TestCase(48, 1ul << 30, "ends within its table of reference counts")]
    [TestCase(48, 0x10200ul, "is at 66048")]
    [TestCase(56, 0ul, "has 0 clusters")]
    public async Task A_repair_rebuilds_a_refcount_table_that_the_header_does_not_name(
        int at, ulong value, string fault)
    {
        string path = MakeByQemu("a.qcow2", MiB);
        Run("qemu-io", "-f", "qcow2", "-c", $"write -P 1 0 {Written}", path);
        Change(path, bytes =>
        {
            if (at == 56) BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(at), (uint)value);
            else Put(bytes, at, value);
        });
        Assert.That(() => Open($"qcow2:{path}"), Throws.TypeOf<TargetException>().With.Message.Contains(fault));
        Assert.That(Qcow2Tool.FindChangesOutside(path, Opening()).HasChanges, Is.False); // as the command asks first
        Qcow2CheckReport report = Qcow2Tool.Check(path, repair: false, Opening());
        Assert.That(report.Repairable, Has.Some.Contains(fault));

        Qcow2Tool.Check(path, repair: true, Opening());

        byte[] shadow = new byte[MiB];
        shadow.AsSpan(0, Written).Fill(1);
        QemuAgrees(path, shadow);
        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image) await disk.WorkAsync(shadow, new Random(1), 100);
        QemuAgrees(path, shadow);
    }

    [Test]
    public void A_repair_drops_the_impossible_place_of_a_cluster_of_zeros()
    {
        string path = MakeByQemu("a.qcow2", MiB);
        Run("qemu-io", "-f", "qcow2", "-c", $"write -P 1 0 {Written}", "-c", "write -z 0 64k", path);
        Change(path, bytes => Put(bytes, L2Of(bytes), L2Entry.CopiedFlag | L2Entry.ZeroFlag | 0x2a00));

        Qcow2CheckReport report = Qcow2Tool.Check(path, repair: true, Opening());

        Assert.That(report.Unrepairable, Is.Empty);
        byte[] shadow = new byte[MiB];
        shadow.AsSpan(65536, Written - 65536).Fill(1);
        QemuAgrees(path, shadow);
    }

    [Test]
    public async Task Clusters_that_no_block_counts_are_counted_before_the_first_write()
    {
        byte[] shadow = new byte[MiB];
        shadow.AsSpan(0, Written).Fill(1);
        string path = MakeByQemu("a.qcow2", MiB, "-o", "refcount_bits=64,cluster_size=1k");
        Run("qemu-io", "-f", "qcow2", "-c", $"write -P 1 0 {Written}", path);
        Change(path, bytes => Break(bytes, "a block of counts is missing"));

        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image) await disk.WorkAsync(shadow, new Random(1), 100);

        Assert.That(Warnings, Has.Exactly(1).Contains("uses clusters that it does not count"));
        QemuAgrees(path, shadow);
    }

    private static void Break(byte[] bytes, string what)
    {
        int l1 = L1Of(bytes), l2 = L2Of(bytes);
        int blocks = (int)BinaryPrimitives.ReadInt64BigEndian(bytes.AsSpan(48));
        ulong block = BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(blocks + 8));
        switch (what)
        {
            case "a block of counts is missing":
                Put(bytes, blocks + 8, 0);
                break;
            case "a block of counts is not at a cluster's start":
                Put(bytes, blocks + 8, block + 0x200);
                break;
            case "a block of counts is behind the end of the file":
                Put(bytes, blocks + 8, 1 << 30);
                break;
            case "a block of counts is in the header":
                Put(bytes, blocks + 8, 0x200);
                break;
            case "a block of counts is where level 1 is":
                Put(bytes, blocks + 8, (ulong)l1);
                break;
            case "a table is counted as free":
                int first = (int)BinaryPrimitives.ReadInt64BigEndian(bytes.AsSpan(blocks));
                Put(bytes, first + (l1 / 1024 * 8), 0);
                break;
            case "an entry of level 1 is not at a cluster's start":
                Put(bytes, l1, ((uint)l2 + 0x200u) | L2Entry.CopiedFlag);
                break;
            case "an entry of level 1 is behind the end of the file":
                Put(bytes, l1, (1ul << 40) | L2Entry.CopiedFlag);
                break;
            case "an entry of level 1 has a reserved bit":
                Put(bytes, l1, (uint)l2 | 4 | L2Entry.CopiedFlag);
                break;
            default:
                Put(bytes, l1, (uint)l1 | L2Entry.CopiedFlag);
                break;
        }
    }

    private static int L1Of(byte[] bytes) => (int)BinaryPrimitives.ReadInt64BigEndian(bytes.AsSpan(40));

    private static int L2Of(byte[] bytes) => (int)(Get(bytes, L1Of(bytes)) & L2Entry.OffsetMask);

    private static ulong Get(byte[] bytes, int at) => BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(at));

    private static void Put(byte[] bytes, int at, ulong value) =>
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(at), value);

    private static void Change(string path, Action<byte[]> change)
    {
        byte[] bytes = File.ReadAllBytes(path);
        change(bytes);
        File.WriteAllBytes(path, bytes);
    }

    private static ImageOpening Opening() => new("the test", 0, false, false, null, _ => { });
}
