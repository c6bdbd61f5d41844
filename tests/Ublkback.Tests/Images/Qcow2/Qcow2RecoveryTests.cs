using System.Buffers.Binary;
using System.Globalization;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Images.Qcow2;

namespace Ublkback.Tests.Images.Qcow2;

/// <summary>
/// What was answered to a guest is there for the next process, though it is in no table of the file yet.
/// </summary>
public sealed class Qcow2RecoveryTests : Qcow2Fixture
{
    // Of each random test; more for a thorough run.
    private static int Lives { get; } =
        int.Parse(Environment.GetEnvironmentVariable("UBLKBACK_KILLS") ?? "12", CultureInfo.InvariantCulture);

    // With small clusters there are many tables of level 2, which the process that died had not written yet.
    [TestCase("64k")]
    [TestCase("512")]
    public async Task What_was_acknowledged_outlives_the_process(string clusterSize)
    {
        byte[] shadow = new byte[16 * MiB];
        string path = MakeByQemu("a.qcow2", shadow.Length, "-o", $"cluster_size={clusterSize}");
        Random random = new(8);
        for (int life = 0; life < 12; life++)
        {
            ImageDriver disk = Open($"qcow2:{path}", stateFolder: PathOf("run"));
            Assert.That(
                (await disk.ReadAsync(0, shadow.Length)).AsSpan().SequenceEqual(shadow), Is.True, $"life {life}");
            await disk.WorkAsync(shadow, random, random.Next(80));
            await KillAsync(disk);
        }

        ImageDriver last = Open($"qcow2:{path}", stateFolder: PathOf("run"));
        await using (last.Image)
            Assert.That((await last.ReadAsync(0, shadow.Length)).AsSpan().SequenceEqual(shadow), Is.True);
        Assert.That(Directory.GetFiles(PathOf("run")), Is.Empty);
        // Clusters of changes that were half committed may stay counted.
        (int status, string output) = TryRun("qemu-img", "check", path);
        Assert.That(status, Is.Zero.Or.EqualTo(3), output);
        Run("qemu-img", "check", "-q", "-r", "leaks", path);
        QemuAgrees(path, shadow);
    }

    [Test]
    public async Task A_place_of_compressed_clusters_that_is_used_again_is_counted_once()
    {
        const int Cluster = 4096;
        byte[] shadow = [.. Enumerable.Repeat((byte)'A', 4 * MiB)];
        File.WriteAllBytes(PathOf("a.raw"), shadow);
        string path = PathOf("a.qcow2");
        Run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", $"cluster_size={Cluster}", PathOf("a.raw"), path);
        ImageDriver disk = Open($"qcow2:{path}", stateFolder: PathOf("run"));
        shadow.AsSpan(0, 256 * Cluster).Fill((byte)'B');
        await disk.WriteAsync(0, shadow.AsMemory(0, 256 * Cluster).ToArray());
        await disk.FlushAsync();
        await disk.FlushAsync(); // what was rewritten is free
        shadow.AsSpan(256 * Cluster, 16 * Cluster).Fill((byte)'C');
        await disk.WriteAsync(256 * Cluster, shadow.AsMemory(256 * Cluster, 16 * Cluster).ToArray());
        await KillAsync(disk);

        ImageDriver last = Open($"qcow2:{path}", stateFolder: PathOf("run"));
        await using (last.Image) Assert.That(await last.ReadAsync(0, shadow.Length), Is.EqualTo(shadow));
        (int status, string output) = TryRun("qemu-img", "check", path);
        Assert.That(status, Is.Zero.Or.EqualTo(3), output); // 3: clusters that are counted too often
        Run("qemu-img", "check", "-q", "-r", "leaks", path);
        QemuAgrees(path, shadow);
    }

    // A commit that was killed may have brought the last change into the file, while the log still has all of them.
    [Test]
    public async Task Changes_that_are_in_the_file_already_release_nothing_that_is_used()
    {
        string path = MakeByQemu("a.qcow2", 64 * MiB);
        ImageDriver disk = Open($"qcow2:{path}", stateFolder: PathOf("run"));
        await disk.WriteAsync(0, [.. Enumerable.Repeat((byte)1, 65536)]);
        await disk.DiscardAsync(0, 65536);
        await disk.WriteAsync(0, [.. Enumerable.Repeat((byte)2, 65536)]);
        await KillAtTheEndOfACommitAsync(disk);

        disk = Open($"qcow2:{path}", stateFolder: PathOf("run"));
        await disk.FlushAsync();
        await disk.WriteAsync(MiB, [.. Enumerable.Repeat((byte)9, MiB)]);
        Assert.That(await disk.ReadAsync(0, 65536), Is.All.EqualTo(2));
        await disk.Image.DisposeAsync();
        Assert.That(Run("qemu-img", "check", path), Does.Contain("No errors"));
    }

    [TestCase("512")]
    [TestCase("4k")]
    [TestCase("64k")]
    [TestCase("2M")]
    public async Task Kills_at_the_end_of_commits_lose_nothing(string clusterSize)
    {
        byte[] shadow = new byte[16 * MiB];
        string path = MakeByQemu("a.qcow2", shadow.Length, "-o", $"cluster_size={clusterSize}");
        int seed = Environment.TickCount;
        TestContext.Out.WriteLine($"seed {seed}");
        Random random = new(seed);
        for (int life = 0; life < Lives; life++)
        {
            ImageDriver disk = Open($"qcow2:{path}", stateFolder: PathOf("run"));
            Assert.That(
                (await disk.ReadAsync(0, shadow.Length)).AsSpan().SequenceEqual(shadow), Is.True, $"life {life}");
            await disk.WorkAsync(shadow, random, random.Next(60));
            if (random.Next(3) == 0) await KillAsync(disk);
            else await KillAtTheEndOfACommitAsync(disk);
        }

        ImageDriver last = Open($"qcow2:{path}", stateFolder: PathOf("run"));
        await using (last.Image)
            Assert.That((await last.ReadAsync(0, shadow.Length)).AsSpan().SequenceEqual(shadow), Is.True);
        Run("qemu-img", "check", "-q", "-r", "leaks", path);
        QemuAgrees(path, shadow);
    }

    [Test]
    public void An_image_that_is_refused_leaves_no_log()
    {
        MakeByQemu("below.qcow2", 4 * MiB);
        string path = PathOf("a.qcow2");
        Run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", PathOf("below.qcow2"), path);
        Assert.That(
            () => Open($"qcow2:{path}", stateFolder: PathOf("run")),
            Throws.TypeOf<TargetException>().With.Message.Contains("backing=allow"));
        Assert.That(Directory.GetFiles(PathOf("run")), Is.Empty);
    }

    [Test]
    public async Task A_log_is_not_believed_when_somebody_has_written_the_image_since()
    {
        string path = MakeByQemu("a.qcow2", 4 * MiB);
        ImageDriver disk = Open($"qcow2:{path}", stateFolder: PathOf("run"));
        await disk.WriteAsync(0, [.. Enumerable.Repeat((byte)1, 65536)]);
        await KillAsync(disk);
        Run("qemu-io", "-c", "write -P 2 1M 1M", path); // repairs the image, for it is dirty, and closes it

        disk = Open($"qcow2:{path}", stateFolder: PathOf("run"));
        await using (disk.Image)
        {
            Assert.That(
                await disk.ReadAsync(0, 65536), Is.All.Zero,
                "the write was never flushed, and QEMU did not know of it");
            Assert.That(await disk.ReadAsync(MiB, MiB), Is.All.EqualTo(2));
        }

        Assert.That(Run("qemu-img", "check", path), Does.Contain("No errors"));
    }

    [Test]
    public async Task Version_2_has_every_change_in_the_file_before_it_is_answered()
    {
        string path = MakeByQemu("a.qcow2", 4 * MiB, "-o", "compat=0.10");
        ImageDriver disk = Open($"qcow2:{path}", stateFolder: PathOf("run"));
        await disk.WriteAsync(MiB, [.. Enumerable.Repeat((byte)7, MiB)]);
        await KillAsync(disk);
        Directory.Delete(PathOf("run"), recursive: true);
        disk = Open($"qcow2:{path}");
        await using (disk.Image) Assert.That(await disk.ReadAsync(MiB, MiB), Is.All.EqualTo(7));
    }

    [Test]
    public async Task An_image_that_was_not_closed_is_repaired()
    {
        byte[] shadow = new byte[8 * MiB];
        string path = MakeByQemu("a.qcow2", shadow.Length, "-o", "lazy_refcounts=on");
        ImageDriver disk = Open($"qcow2:{path}");
        await using (disk.Image) await disk.WorkAsync(shadow, new Random(1), 60, discards: false);
        byte[] bytes = File.ReadAllBytes(path);
        bytes[79] |= 1; // dirty: reference counts may be wrong, and these are
        int block = (int)BinaryPrimitives.ReadInt64BigEndian(
            bytes.AsSpan((int)BinaryPrimitives.ReadInt64BigEndian(bytes.AsSpan(48))));
        for (int cluster = 5; cluster < 20; cluster++)
            BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(block + (2 * cluster)), (ushort)(cluster % 3));
        File.WriteAllBytes(path, bytes);

        disk = Open($"qcow2:{path}");
        await using (disk.Image) await disk.WorkAsync(shadow, new Random(2), 60);

        Assert.That(Warnings, Has.Some.Contains("its refcounts were repaired"));
        QemuAgrees(path, shadow);
    }

    // The file has everything, and the log does not say so yet. It names the generation that the file is to have.
    private async Task KillAtTheEndOfACommitAsync(ImageDriver disk)
    {
        string[] logs = Directory.Exists(PathOf("run")) ? Directory.GetFiles(PathOf("run")) : [];
        byte[]? before = logs.Length == 0 ? null : File.ReadAllBytes(logs[0]);
        await disk.FlushAsync();
        await KillAsync(disk);
        if (before is null || !File.Exists(logs[0])) return;
        File.ReadAllBytes(logs[0]).AsSpan(32, 8).CopyTo(before.AsSpan(32));
        File.WriteAllBytes(logs[0], before);
    }

    // As a kill does: what was submitted is done, what is in memory is gone.
    private static async Task KillAsync(ImageDriver disk) => await ((Qcow2Image)disk.Image).AbandonAsync();
}
