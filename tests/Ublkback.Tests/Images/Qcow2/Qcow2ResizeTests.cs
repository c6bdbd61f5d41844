using NUnit.Framework;
using Ublkback.Block;

namespace Ublkback.Tests.Images.Qcow2;

public sealed class Qcow2ResizeTests : Qcow2Fixture
{
    [Test]
    public async Task A_disk_grows_again_and_again_while_it_is_used(
        [Values("4k", "64k")] string clusterSize, [Values(false, true)] bool hasSnapshot)
    {
        byte[] shadow = new byte[3 * MiB];
        string path = MakeByQemu("a.qcow2", shadow.Length, "-o", $"cluster_size={clusterSize}");
        if (hasSnapshot)
        {
            Run("qemu-io", "-c", "write -P 3 0 2M", path);
            Run("qemu-img", "snapshot", "-c", "before", path);
            shadow.AsSpan(0, 2 * MiB).Fill(3);
        }

        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image)
        {
            Task work = disk.WorkAsync(shadow, new Random(4), 800);
            // The last ones need another table of level 1 at 4 KiB: 512 entries make a cluster of it, each for 2 MiB.
            foreach (long size in new long[] { 5 * MiB, 64 * MiB, 2L << 30, 9L << 30 }) await disk.ResizeAsync(size);
            await disk.WriteAsync((9L << 30) - 4096, [.. Enumerable.Repeat((byte)9, 4096)]);
            await work;
            Assert.That((await disk.ReadAsync(3 * MiB, MiB)).Any(value => value != 0), Is.False);
            Assert.That((await disk.ReadAsync((9L << 30) - 4096, 4096)).All(value => value == 9), Is.True);
        }

        Assert.That(Run("qemu-img", "info", path), Does.Contain($"virtual size: 9 GiB"));
        Run("qemu-io", "-c", "write -P 0 9663672320 4k", path); // QEMU compares whole disks
        byte[] whole = new byte[3 * MiB];
        shadow.CopyTo(whole, 0);
        QemuAgrees(path, whole);
        if (hasSnapshot)
        {
            Run("qemu-img", "snapshot", "-a", "before", path);
            Assert.That(Run("qemu-io", "-c", "read -P 3 0 2M", path), Does.Not.Contain("failed"));
        }

        Assert.That(Warnings, Is.Empty);
    }

    [Test]
    public async Task What_is_added_is_zeros_whatever_lies_below_or_was_there(
        [Values("4k", "64k")] string clusterSize, [Values(false, true)] bool hasBacking)
    {
        const int Small = MiB + (5 * 512);
        const int Large = 6 * MiB;
        byte[] below = [.. Enumerable.Repeat((byte)0xBB, 5 * MiB)];
        File.WriteAllBytes(PathOf("below.raw"), below);
        string path = MakeByQemu(
            "a.qcow2", Small,
            ["-o", $"cluster_size={clusterSize}",
                .. hasBacking ? ["-b", PathOf("below.raw"), "-F", "raw"] : Array.Empty<string>()]);
        byte[] shadow = new byte[Large];
        if (hasBacking) below.AsSpan(0, Small).CopyTo(shadow);
        ImageDriver disk = Open($"qcow2:{path}?backing=allow");
        await using (disk.Image)
        {
            await disk.ResizeAsync(Large);
            Assert.That((await disk.ReadAsync(0, Large)).AsSpan().SequenceEqual(shadow), Is.True, "grown");
            await disk.WriteAsync(0, [.. Enumerable.Repeat((byte)7, Large)]);
            await disk.ResizeAsync(Small);
            await disk.ResizeAsync(Large);
            shadow.AsSpan().Clear();
            shadow.AsSpan(0, Small).Fill(7);
            Assert.That((await disk.ReadAsync(0, Large)).AsSpan().SequenceEqual(shadow), Is.True, "shrunk and grown");
        }

        QemuAgrees(path, shadow);
    }

    [Test]
    public async Task A_loss_of_power_leaves_the_old_size_or_the_new([Values(4096, 65536)] int clusterSize)
    {
        const int Before = MiB + (3 * 512);
        long[] sizes = [Before, 3L << 30, 20L << 30];
        string path = MakeByQemu("a.qcow2", Before, "-o", $"cluster_size={clusterSize}");
        RecordingFile container = new(File.ReadAllBytes(path));
        ImageDriver disk = new(Worker, OpenRecorded(container, path, null));
        List<int> ends = [];
        int written;
        await using (disk.Image)
        {
            await disk.WriteAsync(0, [.. Enumerable.Repeat((byte)5, Before)]);
            await disk.FlushAsync();
            written = container.Position;
            foreach (long size in sizes[1..])
            {
                await disk.ResizeAsync(size);
                ends.Add(container.Position);
            }
        }

        Random random = new(3);
        for (int at = written; at <= container.Position; at++)
        {
            string lost = PathOf("lost.qcow2");
            await File.WriteAllBytesAsync(lost, container.AfterPowerLoss(at, random));
            (int status, string output) = TryRun("qemu-img", "check", lost);
            Assert.That(
                status, Is.Zero.Or.EqualTo(3), $"power lost after {at} of {container.Position} writes: {output}");
            ImageDriver again = Open($"qcow2:{lost}");
            await using IBlockImage image = again.Image;
            Assert.That(
                (long)image.Geometry.SectorCount * 512, Is.AnyOf(sizes[ends.Count(end => end <= at)..]),
                $"after {at}, with ends at {string.Join(", ", ends)}");
            Assert.That((await again.ReadAsync(0, Before)).All(value => value == 5), Is.True);
            Assert.That((await again.ReadAsync(
                Before, (int)Math.Min(MiB, ((long)image.Geometry.SectorCount * 512) - Before)))
                .Any(value => value != 0), Is.False);
        }
    }

    [Test]
    public void What_cannot_be_resized_says_so_and_is_as_it_was()
    {
        File.WriteAllBytes(PathOf("below.raw"), new byte[MiB]);
        string old = MakeByQemu("old.qcow2", MiB, "-o", "compat=0.10", "-b", PathOf("below.raw"), "-F", "raw");
        string small = MakeByQemu("small.qcow2", MiB, "-o", "cluster_size=4k");
        byte[] before = File.ReadAllBytes(old);
        Refuses($"qcow2:{old}?backing=allow", 2 * MiB, "qemu-img amend -o compat=1.1");
        Refuses($"qcow2:{small}", 1L << 50, "needs larger clusters than 4096 bytes");
        Refuses("memory:1M", 2 * MiB, "cannot be resized: Operation not permitted");
        Assert.That(File.ReadAllBytes(old), Is.EqualTo(before));

        void Refuses(string target, long size, string reason)
        {
            ImageDriver disk = Open(target);
            Assert.That(
                async () => await disk.ResizeAsync(size),
                Throws.TypeOf<TargetException>().With.Message.Contains(reason));
            Assert.That(disk.Image.Geometry.SectorCount, Is.EqualTo(MiB / 512));
            disk.Image.DisposeAsync().AsTask().GetAwaiter().GetResult();
        }
    }
}
