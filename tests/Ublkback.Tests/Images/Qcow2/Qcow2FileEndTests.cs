using System.Buffers.Binary;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Images.Qcow2;
using Ublkback.Images.Qcow2.Format;

namespace Ublkback.Tests.Images.Qcow2;

/// <summary>
/// Files that end anywhere: within a sector, within a cluster, before a cluster that they refer to. What lies behind
/// the end reads as zeros, and can be written.
/// </summary>
public sealed class Qcow2FileEndTests : Qcow2Fixture
{
    [TestCase("zlib", false)]
    [TestCase("zlib", true)]
    [TestCase("zstd", false)]
    [TestCase("zstd", true)]
    public async Task A_compressed_cluster_at_the_files_odd_end_is_read_as_a_whole(string type, bool isBelow)
    {
        byte[] shadow = new byte[MiB];
        shadow.AsSpan(0, 65536).Fill(0xAA);
        shadow.AsSpan(65536, 65536).Fill(0xBB);
        string path = MakeByQemu("a.qcow2", MiB, "-o", $"compression_type={type}");
        Run("qemu-io", "-f", "qcow2", "-c", "write -c -P 0xaa 0 64k", "-c", "write -c -P 0xbb 64k 64k", path);
        Assert.That(new FileInfo(path).Length % 512, Is.Not.Zero, "QEMU does not fill the last sector up");
        if (isBelow)
        {
            string over = MakeByQemu("over.qcow2", MiB, "-b", path, "-F", "qcow2");
            path = $"{over}?backing=allow";
        }

        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image)
        {
            Assert.That((await disk.ReadAsync(0, MiB)).AsSpan().SequenceEqual(shadow), Is.True);
            await disk.WriteAsync(65536, [.. Enumerable.Repeat((byte)1, 512)]);
            shadow.AsSpan(65536, 512).Fill(1);
        }

        QemuAgrees(path.Split('?')[0], shadow);
        Assert.That(Warnings, Is.Empty);
    }

    [TestCase(4096)]
    [TestCase(1000)]
    public async Task A_last_cluster_that_is_incomplete_in_the_file_is_read_and_written(int left)
    {
        byte[] shadow = new byte[4 * MiB];
        string path = MakeByQemu("a.qcow2", shadow.Length);
        Run("qemu-io", "-f", "qcow2", "-c", "write -P 8 0 4k", path);
        using (FileStream file = new(path, FileMode.Open)) file.SetLength(0x50000 + left);
        shadow.AsSpan(0, left).Fill(8);

        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image)
        {
            Assert.That((await disk.ReadAsync(0, MiB)).AsSpan().SequenceEqual(shadow.AsSpan(0, MiB)), Is.True);
            await disk.WriteAsync(8192, [.. Enumerable.Repeat((byte)9, 4096)]);
            shadow.AsSpan(8192, 4096).Fill(9);
        }

        QemuAgrees(path, shadow);
        Assert.That(Warnings, Is.Empty);
    }

    [TestCase(1L << 30)]
    [TestCase(1L << 45)]
    public async Task A_cluster_behind_the_end_of_the_file_is_zeros_and_can_be_written(long place)
    {
        byte[] shadow = new byte[4 * MiB];
        string path = MakeByQemu("a.qcow2", shadow.Length, "-o", "cluster_size=4k");
        Run("qemu-io", "-f", "qcow2", "-c", "write -P 8 0 64k", path);
        shadow.AsSpan(0, 65536).Fill(8);
        ChangeEntry(path, L2Entry.CopiedFlag | (ulong)place);
        shadow.AsSpan(0, 4096).Clear();

        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image)
        {
            Assert.That((await disk.ReadAsync(0, MiB)).AsSpan().SequenceEqual(shadow.AsSpan(0, MiB)), Is.True);
            await disk.WriteAsync(512, [.. Enumerable.Repeat((byte)9, 8192)]);
            shadow.AsSpan(512, 8192).Fill(9);
        }

        Assert.That(new FileInfo(path).Length, Is.LessThan(MiB), "the file does not grow to that place");
        Assert.That(Run("qemu-img", "info", path), Does.Contain("corrupt: false"));
        Assert.That(Warnings, Is.Empty);
        Run("qemu-img", "check", "-q", "-r", "leaks", path); // the cluster that the entry was of before
        QemuAgrees(path, shadow);
    }

    [TestCase("1.1")]
    [TestCase("0.10")]
    public void A_repair_turns_a_cluster_behind_the_end_of_the_file_into_zeros(string compat)
    {
        byte[] shadow = new byte[4 * MiB];
        string path = MakeByQemu("a.qcow2", shadow.Length, "-o", $"compat={compat}");
        Run("qemu-io", "-f", "qcow2", "-c", "write -P 8 0 128k", path);
        shadow.AsSpan(65536, 65536).Fill(8);
        ChangeEntry(path, L2Entry.CopiedFlag | (1ul << 30));
        ImageOpening opening = new("the test", 0, false, false, null, _ => { });
        Qcow2CheckReport report = Qcow2Tool.Check(path, repair: true, opening);
        Assert.That((report.Errors, report.Unrepairable.Count), Is.EqualTo((1L, 0)));
        QemuAgrees(path, shadow);
    }

    [Test]
    public async Task A_table_that_is_incomplete_at_the_files_end_is_zeros_there()
    {
        byte[] shadow = new byte[4 * MiB];
        string path = MakeByQemu("a.qcow2", shadow.Length, "-o", "cluster_size=4k");
        Run("qemu-io", "-f", "qcow2", "-c", "write -P 8 0 4k", path);
        shadow.AsSpan(0, 4096).Fill(8);
        byte[] bytes = File.ReadAllBytes(path);
        int l1 = (int)BinaryPrimitives.ReadInt64BigEndian(bytes.AsSpan(40));
        ulong l2 = BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(l1)) & L2Entry.OffsetMask;
        // The table moves to the end, and only its first entry is in the file.
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(l1), (ulong)bytes.LongLength | L2Entry.CopiedFlag);
        File.WriteAllBytes(path, [.. bytes, .. bytes.AsSpan((int)l2, 8)]);
        Run("qemu-img", "check", "-r", "all", path);

        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image)
        {
            Assert.That((await disk.ReadAsync(0, MiB)).AsSpan().SequenceEqual(shadow.AsSpan(0, MiB)), Is.True);
            await disk.WriteAsync(MiB, [.. Enumerable.Repeat((byte)9, 8192)]);
            shadow.AsSpan(MiB, 8192).Fill(9);
        }

        QemuAgrees(path, shadow);
        Assert.That(Warnings, Is.Empty);
    }

    [Test]
    public async Task A_backing_file_that_ends_within_a_sector_is_read_to_its_end()
    {
        byte[] below = new byte[100_001];
        new Random(1).NextBytes(below);
        File.WriteAllBytes(PathOf("below.raw"), below);
        string path = MakeByQemu("a.qcow2", MiB, "-b", PathOf("below.raw"), "-F", "raw");
        byte[] shadow = new byte[MiB];
        below.CopyTo(shadow, 0);
        ImageDriver disk = Open($"qcow2:{path}?backing=allow");
        await using (disk.Image)
        {
            Assert.That((await disk.ReadAsync(0, MiB)).AsSpan().SequenceEqual(shadow), Is.True);
            await disk.WriteAsync(99_840, [.. Enumerable.Repeat((byte)9, 512)]); // before the last sector
            shadow.AsSpan(99_840, 512).Fill(9);
        }

        QemuAgrees(path, shadow);
    }

    [Test]
    public async Task A_compressed_cluster_that_cannot_be_unpacked_fails_its_own_reads_only()
    {
        string path = MakeByQemu("a.qcow2", MiB);
        Run("qemu-io", "-f", "qcow2", "-c", "write -c -P 0xaa 0 64k", "-c", "write -P 0xbb 64k 64k", path);
        byte[] bytes = File.ReadAllBytes(path);
        ulong entry = ReadEntry(bytes);
        bytes.AsSpan((int)(entry & 0x3FFFFFF), 64).Fill(0xFF);
        File.WriteAllBytes(path, bytes);

        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image)
        {
            Assert.That(await disk.TryReadAsync(0, new byte[512]), Is.EqualTo(BlockStatus.IoError));
            Assert.That(
                await disk.TryWriteAsync(512, new byte[512]), Is.EqualTo(BlockStatus.IoError),
                "the rest of the cluster cannot be known");
            await disk.WriteAsync(65536, [.. Enumerable.Repeat((byte)1, 65536)]);
            await disk.WriteAsync(0, [.. Enumerable.Repeat((byte)2, 65536)]);
            Assert.That(await disk.ReadAsync(0, 65536), Is.All.EqualTo(2));
        }

        Assert.That(Warnings, Has.Exactly(2).Contains("cannot be unpacked"));
        QemuAgrees(
            path,
            [.. Enumerable.Repeat((byte)2, 65536), .. Enumerable.Repeat((byte)1, 65536), .. new byte[MiB - 131072]]);
    }

    private static ulong ReadEntry(byte[] bytes) => BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(PlaceOf(bytes)));

    private static int PlaceOf(byte[] bytes)
    {
        int l1 = (int)BinaryPrimitives.ReadInt64BigEndian(bytes.AsSpan(40));
        return (int)(BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(l1)) & L2Entry.OffsetMask);
    }

    private static void ChangeEntry(string path, ulong entry)
    {
        byte[] bytes = File.ReadAllBytes(path);
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(PlaceOf(bytes)), entry);
        File.WriteAllBytes(path, bytes);
    }
}
