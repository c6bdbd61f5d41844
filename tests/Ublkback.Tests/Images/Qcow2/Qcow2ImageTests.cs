using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Images.Qcow2;

namespace Ublkback.Tests.Images.Qcow2;

public sealed class Qcow2ImageTests : Qcow2Fixture
{
    [TestCase("cluster_size=512")]
    [TestCase("cluster_size=4k")]
    [TestCase("cluster_size=64k")]
    [TestCase("cluster_size=2M")]
    [TestCase("compat=0.10")]
    [TestCase("lazy_refcounts=on")]
    [TestCase("refcount_bits=1")]
    [TestCase("refcount_bits=64,cluster_size=4k")]
    [TestCase("preallocation=metadata")]
    [TestCase("preallocation=falloc,cluster_size=8k")]
    public async Task A_disk_made_by_QEMU_is_used_and_QEMU_agrees(string options)
    {
        byte[] shadow = new byte[(24 * MiB) + (7 * 512)];
        string path = MakeByQemu("a.qcow2", shadow.Length, "-o", options);
        Random random = new(17);
        for (int life = 0; life < 2; life++)
        {
            ImageDriver disk = Open($"qcow2:{path}");
            await using IBlockImage image = disk.Image;
            Assert.That(image.Geometry.SectorCount, Is.EqualTo(shadow.Length / 512));
            await disk.WorkAsync(shadow, random, 400);
            Assert.That((await disk.ReadAsync(0, shadow.Length)).AsSpan().SequenceEqual(shadow), Is.True);
        }

        QemuAgrees(path, shadow);
        Assert.That(Warnings, Is.Empty);
    }

    [Test]
    public async Task An_overlay_shows_what_is_below_and_leaves_it_alone(
        [Values("raw", "qcow2")] string format, [Values("4k", "64k", "2M")] string clusterSize)
    {
        byte[] shadow = new byte[12 * MiB];
        byte[] below = new byte[10 * MiB];
        new Random(5).NextBytes(below);
        below.AsSpan(3 * MiB, MiB).Clear();
        below.CopyTo(shadow, 0);
        string golden = PathOf("golden");
        File.WriteAllBytes(PathOf("golden.raw"), below);
        Run("qemu-img", "convert", "-f", "raw", "-O", format, PathOf("golden.raw"), golden);
        byte[] goldenBytes = File.ReadAllBytes(golden);
        string path = MakeByQemu(
            "over.qcow2", shadow.Length, "-o", $"cluster_size={clusterSize}", "-b", golden, "-F", format);

        ImageDriver disk = Open($"qcow2:{path}?backing=allow");
        await using (disk.Image) await disk.WorkAsync(shadow, new Random(6), 400);

        QemuAgrees(path, shadow);
        Assert.That(File.ReadAllBytes(golden).AsSpan().SequenceEqual(goldenBytes), Is.True);
    }

    [TestCase("zlib", "64k")]
    [TestCase("zstd", "64k")]
    [TestCase("zstd", "2M")]
    public async Task Compressed_clusters_are_read_and_written_over(string type, string clusterSize)
    {
        byte[] shadow = new byte[8 * MiB];
        for (int i = 0; i < shadow.Length; i++) shadow[i] = (byte)(i / 1000);
        File.WriteAllBytes(PathOf("plain.raw"), shadow);
        Run(
            "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o",
            $"compression_type={type},cluster_size={clusterSize}", PathOf("plain.raw"), PathOf("packed.qcow2"));

        ImageDriver disk = Open($"qcow2:{PathOf("packed.qcow2")}");
        await using (disk.Image)
        {
            Assert.That((await disk.ReadAsync(0, shadow.Length)).AsSpan().SequenceEqual(shadow), Is.True);
            await disk.WorkAsync(shadow, new Random(9), 200);
        }

        QemuAgrees(PathOf("packed.qcow2"), shadow);
    }

    [Test]
    public async Task More_writes_into_compressed_clusters_than_there_is_memory_for_copies_all_end()
    {
        byte[] shadow = [.. Enumerable.Repeat((byte)0x11, 32 * MiB)];
        File.WriteAllBytes(PathOf("plain.raw"), shadow);
        Run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", PathOf("plain.raw"), PathOf("packed.qcow2"));
        ImageDriver disk = Open($"qcow2:{PathOf("packed.qcow2")}");
        await Task.WhenAll(Enumerable.Range(0, 512).Select(async cluster =>
        {
            byte[] sector = [.. Enumerable.Repeat((byte)cluster, 512)];
            sector.CopyTo(shadow, cluster * 65536);
            await disk.WriteAsync(cluster * 65536L, sector);
        }));
        await disk.Image.DisposeAsync();
        QemuAgrees(PathOf("packed.qcow2"), shadow);
    }

    [Test]
    public async Task Internal_snapshots_keep_what_they_hold([Values("1.1", "0.10")] string compat)
    {
        byte[] shadow = new byte[8 * MiB];
        string path = MakeByQemu("a.qcow2", shadow.Length, "-o", $"compat={compat},cluster_size=16k");
        List<byte[]> snapshots = [];
        for (int i = 0; i < 3; i++)
        {
            ImageDriver disk = Open($"qcow2:{path}");
            await using (disk.Image) await disk.WorkAsync(shadow, new Random(i), 120);
            Run("qemu-img", "snapshot", "-c", $"s{i}", path);
            snapshots.Add([.. shadow]);
        }

        ImageDriver last = Open($"qcow2:{path}");
        await using (last.Image) await last.WorkAsync(shadow, new Random(7), 120);
        QemuAgrees(path, shadow);
        for (int i = 0; i < 3; i++)
        {
            Run("qemu-img", "snapshot", "-a", $"s{i}", path);
            QemuAgrees(path, snapshots[i]);
        }
    }

    [Test]
    public async Task Tables_grow_with_a_disk_that_is_much_larger_than_they_were_made_for()
    {
        // 512 bytes a cluster: a block counts 256 of them, and the table of blocks is full after 64 blocks.
        byte[] shadow = new byte[40 * MiB];
        string path = MakeByQemu("a.qcow2", shadow.Length, "-o", "cluster_size=512");
        new Random(3).NextBytes(shadow);
        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image)
        {
            for (int at = 0; at < shadow.Length; at += MiB) await disk.WriteAsync(at, shadow[at..(at + MiB)]);
            Assert.That((await disk.ReadAsync(0, shadow.Length)).AsSpan().SequenceEqual(shadow), Is.True);
        }

        QemuAgrees(path, shadow);
    }

    [Test]
    public async Task A_discard_gives_space_back()
    {
        string path = MakeByQemu("a.qcow2", 32 * MiB);
        byte[] data = new byte[16 * MiB];
        new Random(4).NextBytes(data);
        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image)
        {
            await disk.WriteAsync(0, data);
            await disk.FlushAsync();
            await disk.DiscardAsync(MiB, 12 * MiB);
            Assert.That(await disk.ReadAsync(MiB, 12 * MiB), Is.All.Zero);
        }

        data.AsSpan(MiB, 12 * MiB).Clear();
        QemuAgrees(path, [.. data, .. new byte[16 * MiB]]);
        Mono.Unix.Native.Syscall.stat(path, out Mono.Unix.Native.Stat status);
        Assert.That(status.st_blocks * 512, Is.LessThan(6 * MiB));
    }

    [Test]
    public async Task Writers_of_one_new_cluster_do_not_lose_each_others_sectors()
    {
        File.WriteAllBytes(PathOf("below.raw"), [.. Enumerable.Repeat((byte)0xEE, 4 * MiB)]);
        string path = MakeByQemu("a.qcow2", 4 * MiB, "-b", PathOf("below.raw"), "-F", "raw");
        ImageDriver disk = Open($"qcow2:{path}?backing=allow");
        byte[] shadow = [.. Enumerable.Repeat((byte)0xEE, 4 * MiB)];
        await using (disk.Image)
        {
            await Task.WhenAll(Enumerable.Range(0, 512).Select(async i =>
            {
                // All over eight clusters, each sector by another request, from the middle outwards; one in seven
                // discards a cluster that nobody writes.
                int offset = ((i * 37) % 1024) * 512;
                byte[] sector = [.. Enumerable.Repeat((byte)(i + 1), 512)];
                await disk.WriteAsync(offset, sector);
                sector.CopyTo(shadow, offset);
            }));
        }

        QemuAgrees(path, shadow);
    }

    [Test]
    public async Task Without_a_backing_file_it_is_dense_and_fresh_after_a_close()
    {
        string path = MakeByQemu("a.qcow2", 64 * MiB);
        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image) await disk.WriteAsync(5 * MiB, [.. Enumerable.Repeat((byte)1, 4096)]);
        Assert.That(new FileInfo(path).Length, Is.LessThanOrEqualTo(6 * 65536), "the file ends with what is used");
        Assert.That(Run("qemu-img", "info", path), Does.Contain("corrupt: false"));
        byte[] header = File.ReadAllBytes(path);
        Assert.That(header[72..80], Is.All.Zero, "not dirty");
    }

    [Test]
    public async Task A_reader_changes_nothing()
    {
        string path = MakeByQemu("a.qcow2", 4 * MiB);
        byte[] before = File.ReadAllBytes(path);
        ImageDriver disk = Open($"qcow2:{path}", isReadOnly: true);
        await using (disk.Image)
        {
            Assert.That(disk.Image.Geometry.IsReadOnly, Is.True);
            Assert.That(await disk.ReadAsync(0, 4 * MiB), Is.All.Zero);
            await disk.FlushAsync();
            await using IBlockImage other = Open($"qcow2:{path}", isReadOnly: true).Image;
            Assert.That(
                () => Open($"qcow2:{path}"), Throws.TypeOf<ImageInUseException>().With.Message.Contains("in use"));
        }

        Assert.That(File.ReadAllBytes(path), Is.EqualTo(before));
    }

    [Test]
    public async Task A_chain_is_read_through()
    {
        byte[] shadow = new byte[4 * MiB];
        string below = "";
        for (int i = 0; i < 10; i++)
        {
            string[] backing = i == 0 ? [] : ["-b", below, "-F", "qcow2"];
            string path = MakeByQemu($"c{i}.qcow2", shadow.Length, backing);
            ImageDriver disk = Open($"qcow2:{path}?backing={Folder}");
            await using (disk.Image) await disk.WorkAsync(shadow, new Random(i), 24);
            below = Path.GetFileName(path); // relative to the overlay
        }

        QemuAgrees(PathOf("c9.qcow2"), shadow);
    }

    [Test]
    public void What_cannot_be_opened_is_refused_by_name()
    {
        File.WriteAllBytes(PathOf("raw.img"), new byte[MiB]);
        string plain = MakeByQemu("plain.qcow2", MiB);
        string over = MakeByQemu("over.qcow2", MiB, "-b", plain, "-F", "qcow2");
        string guess = MakeByQemu("guess.qcow2", MiB, "-b", plain, "-F", "qcow2");
        byte[] bytes = File.ReadAllBytes(guess);
        bytes.AsSpan(112, 4).Clear(); // the extension with the format is the first: now there is none
        File.WriteAllBytes(guess, bytes);
        string subclusters = MakeByQemu("sub.qcow2", MiB, "-o", "extended_l2=on");
        string zstd = MakeByQemu("zstd.qcow2", MiB, "-o", "compression_type=zstd");
        string lies = MakeByQemu("lies.qcow2", MiB);
        foreach ((string name, byte type) in new[] { (zstd, (byte)2), (lies, (byte)1) })
        {
            byte[] image = File.ReadAllBytes(name);
            image[104] = type; // compression_type
            File.WriteAllBytes(name, image);
        }

        string external = MakeByQemu("external.qcow2", MiB, "-o", $"data_file={PathOf("data")}");
        // on a host that is called tmp
        string server = MakeByQemu("server.qcow2", MiB, "-u", "-b", $"nbd:/{Folder}/x", "-F", "raw");
        Run("qemu-img", "create", "-q", "-f", "qcow2", PathOf("self.qcow2"), "1M");
        Run("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", PathOf("self.qcow2"), PathOf("self.qcow2"));

        Assert.Multiple(() =>
        {
            Refused(PathOf("raw.img"), "is no qcow2 image");
            Refused(over, "add ?backing=allow");
            Refused($"{over}?backing=/elsewhere", "backing=/elsewhere does not allow");
            Refused($"{server}?backing={Folder}", "does not allow");
            Refused($"{guess}?backing=allow", "does not say of which format its backing file is");
            Refused(subclusters, "subclusters (extended_l2)");
            Refused(zstd, "compression type 2, which is not supported");
            Refused(lies, "its compression type is 1, and its feature bit says otherwise");
            Refused(external, "an external data file");
            Refused($"{PathOf("self.qcow2")}?backing=allow", "is its own backing file");
            Refused($"{plain}?speed=3", "unknown option speed");
        });

        void Refused(string target, string part) =>
            Assert.That(() => Open($"qcow2:{target}"), Throws.TypeOf<TargetException>().With.Message.Contains(part));
    }

    [TestCase(12)]
    [TestCase(16)]
    [TestCase(21)]
    public async Task An_image_made_here_is_one_to_QEMU(int clusterBits)
    {
        byte[] shadow = new byte[16 * MiB];
        string path = PathOf("own.qcow2");
        File.WriteAllBytes(path, Qcow2Creator.Make(shadow.Length, clusterBits, null));
        QemuAgrees(path, shadow);
        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image) await disk.WorkAsync(shadow, new Random(1), 100);
        QemuAgrees(path, shadow);
        Assert.That(Run("qemu-img", "info", path), Does.Contain($"cluster_size: {1 << clusterBits}"));
    }
}
