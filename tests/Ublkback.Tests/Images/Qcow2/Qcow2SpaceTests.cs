using System.Buffers.Binary;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Images.Qcow2;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Qcow2.Metadata;

namespace Ublkback.Tests.Images.Qcow2;

/// <summary>The space of an image: tables that grow, zeros that take none, devices that are full, bitmaps.</summary>
public sealed class Qcow2SpaceTests : Qcow2Fixture
{
    // A table of the first size is full in each of them, and one block does not count the larger one.
    [TestCase(512, 64, 20)]
    [TestCase(512, 32, 36)]
    [TestCase(1024, 64, 36)]
    public async Task The_table_of_counts_grows_at_every_size_of_counts_and_clusters(
        int cluster, int bits, int mebibytes)
    {
        byte[] shadow = new byte[mebibytes * MiB];
        new Random(1).NextBytes(shadow);
        string path = MakeByQemu("a.qcow2", shadow.Length, "-o", $"cluster_size={cluster},refcount_bits={bits}");
        for (int life = 0; life < 2; life++)
        {
            ImageDriver disk = Open($"qcow2:{path}");
            await using IBlockImage image = disk.Image;
            for (int at = life * shadow.Length / 2; at < (life + 1) * shadow.Length / 2; at += MiB)
                await disk.WriteAsync(at, shadow[at..(at + MiB)]);
        }

        QemuAgrees(path, shadow);
        Assert.That(Warnings, Is.Empty);
    }

    [Test]
    public async Task Images_of_every_shape_are_written_and_QEMU_agrees(
        [Values("512", "1k", "4k", "64k", "2M")] string cluster, [Values(1, 2, 4, 8, 16, 32, 64)] int bits)
    {
        byte[] shadow = new byte[6 * MiB];
        string path = MakeByQemu("a.qcow2", shadow.Length, "-o", $"cluster_size={cluster},refcount_bits={bits}");
        Run("qemu-io", "-f", "qcow2", "-c", "write -P 1 1M 300k", "-c", "write -z 2M 1M", path);
        shadow.AsSpan(MiB, 300 << 10).Fill(1);
        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image) await disk.WorkAsync(shadow, new Random(bits), 64);
        QemuAgrees(path, shadow);
        Assert.That(Warnings, Is.Empty);
    }

    [Test]
    public async Task A_discard_over_a_backing_image_makes_zeros_and_takes_no_space()
    {
        File.WriteAllBytes(PathOf("below.raw"), [.. Enumerable.Repeat((byte)7, 32 * MiB)]);
        string path = MakeByQemu("a.qcow2", 40 * MiB, "-b", PathOf("below.raw"), "-F", "raw");
        ImageDriver disk = Open($"qcow2:{path}?backing=allow");
        await using (disk.Image)
        {
            Assert.That(disk.Image.DiscardMakesZeros, Is.True);
            await disk.WriteAsync(MiB, [.. Enumerable.Repeat((byte)9, MiB)]);
            await disk.DiscardAsync(0, 31 * MiB);
            await disk.DiscardAsync(33 * MiB, 7 * MiB);
            Assert.That(await disk.ReadAsync(0, 31 * MiB), Is.All.Zero);
        }

        byte[] shadow = new byte[40 * MiB];
        shadow.AsSpan(31 * MiB, MiB).Fill(7);
        QemuAgrees(path, shadow);
        Mono.Unix.Native.Syscall.stat(path, out Mono.Unix.Native.Stat status);
        Assert.That(status.st_blocks * 512, Is.LessThan(MiB));
    }

    [Test]
    public async Task Over_a_backing_image_version_2_promises_no_zeros()
    {
        File.WriteAllBytes(PathOf("below.raw"), new byte[MiB]);
        string path = MakeByQemu("a.qcow2", MiB, "-o", "compat=0.10", "-b", PathOf("below.raw"), "-F", "raw");
        await using IBlockImage image = Open($"qcow2:{path}?backing=allow").Image;
        Assert.That(image.DiscardMakesZeros, Is.False);
    }

    [Test]
    public async Task A_full_device_says_so_and_a_larger_one_is_used_at_once()
    {
        string path = MakeByQemu("a.qcow2", 8 * MiB);
        RecordingFile device = new(File.ReadAllBytes(path));
        device.SetLength(2 * MiB);
        ImageDriver disk = new(Worker, OpenDevice(device, path));
        byte[] shadow = new byte[8 * MiB];
        new Random(1).NextBytes(shadow);
        int at = 0;
        while (await disk.TryWriteAsync(at, shadow[at..(at + 65536)]) == BlockStatus.Okay) at += 65536;
        Assert.That(at, Is.InRange(MiB, 2 * MiB));
        Assert.That(Warnings, Has.Some.Contains("is full"));

        device.SetLength(16 * MiB);
        for (; at < shadow.Length; at += 65536) await disk.WriteAsync(at, shadow[at..(at + 65536)]);
        await disk.Image.DisposeAsync();

        File.WriteAllBytes(path, device.Content.ToArray());
        QemuAgrees(path, shadow);
    }

    [Test]
    public async Task Bitmaps_are_in_order_and_their_clusters_are_free_after_a_write()
    {
        byte[] shadow = new byte[64 * MiB];
        string path = MakeByQemu("a.qcow2", shadow.Length);
        Run("qemu-img", "bitmap", "--add", "-g", "64k", path, "b0");
        Run("qemu-io", "-f", "qcow2", "-c", "write -P 1 3M 2M", path);
        shadow.AsSpan(3 * MiB, 2 * MiB).Fill(1);
        Qcow2CheckReport report = Qcow2Tool.Check(path, repair: false, Opening());
        Assert.That((report.Leaks, report.Errors, report.Unrepairable.Count), Is.EqualTo((0L, 0L, 0)));

        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image) await disk.ReadAsync(0, 512);
        Assert.That(Run("qemu-img", "info", path), Does.Contain("b0"), "a reader leaves them alone");
        disk = Open($"qcow2:{path}");
        await using (disk.Image) await disk.WorkAsync(shadow, new Random(1), 40);

        QemuAgrees(path, shadow);
        Assert.That(File.ReadAllBytes(path)[95] & 1, Is.Zero, "the bitmaps are true no more");
        Run("qemu-img", "bitmap", "--add", path, "b1");
        QemuAgrees(path, shadow);
        Assert.That(Warnings, Is.Empty);
    }

    [Test]
    public async Task Broken_bitmaps_free_nothing()
    {
        byte[] shadow = new byte[4 * MiB];
        string path = MakeByQemu("a.qcow2", shadow.Length);
        Run("qemu-img", "bitmap", "--add", path, "b0");
        Run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 2M", path);
        shadow.AsSpan(0, 2 * MiB).Fill(1);
        byte[] bytes = File.ReadAllBytes(path);
        int at = 104;
        while (BinaryPrimitives.ReadUInt32BigEndian(bytes.AsSpan(at)) != BitmapDirectory.Extension)
            at += 8 + (int)((BinaryPrimitives.ReadUInt32BigEndian(bytes.AsSpan(at + 4)) + 7) & ~7u);
        int directory = (int)BinaryPrimitives.ReadInt64BigEndian(bytes.AsSpan(at + 8 + 16));
        int l1 = (int)BinaryPrimitives.ReadInt64BigEndian(bytes.AsSpan(40));
        int l2 = (int)(BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(l1)) & L2Entry.OffsetMask);
        // The bitmap's table is where the guest has its first cluster.
        BinaryPrimitives.WriteUInt64BigEndian(
            bytes.AsSpan(directory), BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(l2)) & L2Entry.OffsetMask);
        File.WriteAllBytes(path, bytes);

        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image)
        {
            await disk.WriteAsync(2 * MiB, [.. Enumerable.Repeat((byte)2, MiB)]);
            await disk.FlushAsync();
            await disk.WriteAsync(3 * MiB, [.. Enumerable.Repeat((byte)3, MiB)]);
        }

        shadow.AsSpan(2 * MiB, MiB).Fill(2);
        shadow.AsSpan(3 * MiB, MiB).Fill(3);
        Run("qemu-img", "check", "-q", "-r", "leaks", path);
        QemuAgrees(path, shadow);
    }

    [Test]
    public async Task A_disk_of_no_bytes_is_in_order_and_can_grow()
    {
        string path = MakeByQemu("a.qcow2", 0);
        Qcow2CheckReport report = Qcow2Tool.Check(path, repair: false, Opening());
        Assert.That((report.Leaks, report.Errors, report.Unrepairable.Count), Is.EqualTo((0L, 0L, 0)));
        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image)
        {
            Assert.That(disk.Image.Geometry.SectorCount, Is.Zero);
            await disk.ResizeAsync(MiB);
            await disk.WriteAsync(0, [.. Enumerable.Repeat((byte)1, MiB)]);
        }

        QemuAgrees(path, [.. Enumerable.Repeat((byte)1, MiB)]);
        Qcow2Tool.Create(PathOf("own.qcow2"), 0, 65536, null);
        QemuAgrees(PathOf("own.qcow2"), []);
    }

    private Qcow2Image OpenDevice(RecordingFile device, string path)
    {
        using Microsoft.Win32.SafeHandles.SafeFileHandle file = File.OpenHandle(path);
        Qcow2Tables tables = Qcow2Tables.Read(path, file);
        ContainerFile container = new(device, device.Content.Length, null, () => device.Content.Length);
        Qcow2Parts parts = new(
            tables, container, null, null, MetadataLog.InMemory(), path, isReadOnly: false, Warnings.Add);
        return new Qcow2Image(
            parts, new ImageGeometry((ulong)tables.Header.VirtualSize / 512, 512, 4096, false, 4096), "test");
    }

    private static ImageOpening Opening() => new("the test", 0, false, false, null, _ => { });
}
