using System.Buffers.Binary;
using System.Globalization;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Images.Qcow2;
using Ublkback.Images.Qcow2.Format;

namespace Ublkback.Tests.Images.Qcow2;

/// <summary>
/// Images that are broken or made to hurt: refused, or errors for the requests that meet what is broken; nothing worse.
/// </summary>
public sealed class Qcow2FuzzTests : Qcow2Fixture
{
    private const int DiskSize = 4 * MiB;
    private static readonly TimeSpan Soon = TimeSpan.FromSeconds(20);

    // More for a thorough run.
    private static int Images { get; } = int.Parse(
        Environment.GetEnvironmentVariable("UBLKBACK_FUZZ_IMAGES") ?? "300", CultureInfo.InvariantCulture);

    [Test]
    public async Task Broken_images_are_refused_or_give_errors()
    {
        int seed = int.Parse(Environment.GetEnvironmentVariable("UBLKBACK_FUZZ_SEED")
            ?? Environment.TickCount.ToString(CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);
        TestContext.Out.WriteLine($"UBLKBACK_FUZZ_SEED={seed}");
        byte[] good = await MakeAsync();
        int refused = 0, failed = 0;
        for (int i = 0; i < Images; i++)
        {
            Random random = new(seed + i);
            string path = PathOf("bad.qcow2");
            await File.WriteAllBytesAsync(path, Break(good, random));
            try
            {
                Qcow2Tool.Check(
                    path, random.Next(4) == 0, new ImageOpening("the test", 0, false, false, null, _ => { }));
                ImageDriver disk = Open($"qcow2:{path}", isReadOnly: random.Next(4) == 0);
                failed += await UseAsync(disk, random);
                await disk.Image.DisposeAsync().AsTask().WaitAsync(Soon);
            }
            catch (TargetException)
            {
                refused++;
            }
            catch (TimeoutException)
            {
                Assert.Fail($"UBLKBACK_FUZZ_SEED={seed + i} UBLKBACK_FUZZ_IMAGES=1: it does not end");
            }
        }

        TestContext.Out.WriteLine($"{Images} images: {refused} refused, {failed} requests failed");
        Assert.That(refused, Is.GreaterThan(Images / 50));
        Assert.That(failed, Is.GreaterThan(Images / 10));
    }

    [TestCase("the entry of a cluster points to the header", 0)]
    [TestCase("the entry of a cluster points to the table of level 1", 1)]
    [TestCase("the entry of a cluster points to a table of level 2", 2)]
    [TestCase("the entry of a cluster has a reserved bit", 3)]
    public async Task A_guest_never_writes_the_images_own_tables(string how, int number)
    {
        string path = PathOf("a.qcow2");
        await File.WriteAllBytesAsync(path, await MakeAsync());
        byte[] bytes = await File.ReadAllBytesAsync(path);
        long l1 = BinaryPrimitives.ReadInt64BigEndian(bytes.AsSpan(40));
        long l2 = (long)(BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan((int)l1)) & L2Entry.OffsetMask);
        ulong entry = L2Entry.CopiedFlag
            | number switch { 0 => 0, 1 => (ulong)l1, 2 => (ulong)l2, _ => (ulong)l2 | 4 };
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan((int)l2), entry);
        await File.WriteAllBytesAsync(path, bytes);
        byte[] tables = bytes[(int)l1..((int)l1 + 512)];

        ImageDriver disk = Open($"qcow2:{path}");
        BlockStatus status;
        await using (disk.Image)
        {
            status = await disk.TryWriteAsync(0, [.. Enumerable.Repeat((byte)0x55, 4096)]);
            if (number > 0)
                Assert.That(
                    await disk.TryWriteAsync(MiB, new byte[512]), Is.EqualTo(BlockStatus.IoError),
                    "nothing is written any more");
            Assert.That(await disk.ReadAsync(2 * MiB, 512), Has.Length.EqualTo(512), "what is sound is read");
        }

        byte[] after = await File.ReadAllBytesAsync(path);
        Assert.That(after[(int)l1..((int)l1 + 512)], Is.EqualTo(tables), how);
        if (number == 0) return;
        Assert.That(status, Is.EqualTo(BlockStatus.IoError));
        Assert.That(after[79] & 2, Is.EqualTo(2), "the image says that it is broken");
        Assert.That(Warnings, Has.Exactly(1).Contains("is broken"));
        Assert.That(
            () => Open($"qcow2:{path}"),
            Throws.TypeOf<TargetException>().With.Message.Contains("ublkback image check --repair"));
    }

    [Test]
    public async Task An_entry_of_level_1_that_points_nowhere_is_none()
    {
        byte[] bytes = await MakeAsync();
        int l1 = (int)BinaryPrimitives.ReadInt64BigEndian(bytes.AsSpan(40));
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(l1), L2Entry.CopiedFlag);
        await File.WriteAllBytesAsync(PathOf("a.qcow2"), bytes);
        ImageDriver disk = Open($"qcow2:{PathOf("a.qcow2")}");
        await disk.WriteAsync(0, [.. Enumerable.Repeat((byte)7, 512)]);
        Assert.That(await disk.ReadAsync(0, 512), Is.All.EqualTo(7));
        await disk.Image.DisposeAsync();
    }

    private async Task<byte[]> MakeAsync()
    {
        string path = MakeByQemu("good.qcow2", DiskSize, "-o", "cluster_size=4k");
        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image) await disk.WorkAsync(new byte[DiskSize], new Random(1), 60);
        Run("qemu-img", "snapshot", "-c", "s", path);
        disk = Open($"qcow2:{path}");
        await using (disk.Image)
        {
            await disk.WriteAsync(0, new byte[64 * 512]);
            await disk.WriteAsync(MiB, new byte[64 * 512]);
        }

        return await File.ReadAllBytesAsync(path);
    }

    // Header, table of reference counts, its block, level 1, level 2 and the snapshots are hit more often than chance
    // would have it.
    private static byte[] Break(byte[] good, Random random)
    {
        byte[] bad = [.. good];
        int l1 = (int)BinaryPrimitives.ReadInt64BigEndian(good.AsSpan(40)),
            refcounts = (int)BinaryPrimitives.ReadInt64BigEndian(good.AsSpan(48));
        int l2 = (int)(BinaryPrimitives.ReadUInt64BigEndian(good.AsSpan(l1)) & L2Entry.OffsetMask);
        int block = (int)BinaryPrimitives.ReadInt64BigEndian(good.AsSpan(refcounts)),
            snapshots = (int)BinaryPrimitives.ReadInt64BigEndian(good.AsSpan(64));
        (int Start, int Length)[] places = [
            (4, 108), (l1, 16), (refcounts, 16), (block, 512), (l2, 4096), (snapshots, 64)];
        for (int changes = 1 + random.Next(4); changes > 0; changes--)
        {
            (int start, int length) = places[random.Next(places.Length)];
            int at = start + random.Next(length);
            switch (random.Next(4))
            {
                case 0:
                    bad[at] ^= (byte)(1 << random.Next(8));
                    break;
                case 1:
                    bad[at] = (byte)random.Next(256);
                    break;
                case 2:
                    int entry = Math.Min(at & ~7, bad.Length - 8);
                    BinaryPrimitives.WriteInt64BigEndian(
                        bad.AsSpan(entry),
                        (random.Next(2) == 0 ? long.MinValue : 0) | ((long)random.Next(good.Length / 2048) * 4096));
                    break;
                default:
                    if (random.Next(8) == 0) Array.Resize(ref bad, random.Next(112, good.Length));
                    break;
            }

            if (bad.Length < good.Length) break;
        }

        return bad;
    }

    private static async Task<int> UseAsync(ImageDriver disk, Random random)
    {
        int failed = 0;
        long size = Math.Min((long)Math.Min(disk.Image.Geometry.SectorCount, 1 << 30) * 512, DiskSize);
        for (int i = 0; i < 12; i++)
        {
            int count = (int)Math.Min(512 * (1 + random.Next(64)), size);
            long offset = random.NextInt64((size - count) / 512 + 1) * 512;
            byte[] data = new byte[count];
            BlockStatus status = random.Next(disk.Image.Geometry.IsReadOnly ? 1 : 4) switch
            {
                0 => await disk.TryReadAsync(offset, data),
                1 => await disk.TryWriteAsync(offset, data),
                2 => await disk.RunAsync(BlockOperation.Discard, offset, count, []),
                _ => await disk.TryFlushAsync(),
            };
            if (status != BlockStatus.Okay) failed++;
        }

        return failed;
    }
}
