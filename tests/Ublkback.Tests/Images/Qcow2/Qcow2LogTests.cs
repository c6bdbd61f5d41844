using System.Globalization;
using Mono.Unix.Native;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Images.Qcow2;
using Ublkback.Images.Qcow2.Metadata;
using Ublkback.Linux.Kernel;

namespace Ublkback.Tests.Images.Qcow2;

/// <summary>
/// The log of a killed process is believed only with the image that it is of, as that process left it.
/// </summary>
public sealed class Qcow2LogTests : Qcow2Fixture
{
    private const int Cluster = 64 << 10;
    private const int Sector = 512;
    private const int SectorsPerCluster = Cluster / Sector;

    private string State => PathOf("run");

    [Test]
    public async Task A_restored_backup_gets_no_changes_from_the_log()
    {
        string path = MakeByQemu("a.qcow2", 64 * MiB);
        ImageDriver disk = Open($"qcow2:{path}", stateFolder: State);
        await disk.WriteAsync(0, Filled(1, MiB));
        await disk.FlushAsync();
        File.Copy(path, PathOf("backup"));
        await disk.WriteAsync(16 * MiB, Filled(3, MiB)); // nothing is committed after the backup
        await KillAsync(disk);
        Restore(path);

        disk = Open($"qcow2:{path}", stateFolder: State);
        await using (disk.Image)
        {
            Assert.That(await disk.ReadAsync(16 * MiB, MiB), Is.All.Zero);
            Assert.That(await disk.ReadAsync(0, MiB), Is.All.EqualTo(1));
            await disk.WriteAsync(32 * MiB, Filled(7, MiB));
        }

        Assert.That(Warnings, Has.Some.Contains("is not in the state in which a killed daemon left it"));
        Assert.That(Run("qemu-img", "check", path), Does.Contain("No errors"));
    }

    // The copy shows each sector as it was flushed, or as it was written since. A write of more sectors may be there in
    // part: the copy is made while tables are written.
    [Test]
    public async Task A_copy_of_any_moment_is_read_as_it_was_then([Values("512", "4k", "64k")] string clusterSize)
    {
        string path = MakeByQemu("a.qcow2", 4 * MiB, "-o", $"cluster_size={clusterSize}");
        int seed = Environment.TickCount;
        TestContext.Out.WriteLine($"seed {seed}");
        Random random = new(seed);
        List<byte>[] may = [.. Enumerable.Range(0, 4 * MiB / Sector).Select(_ => new List<byte> { 0 })];
        for (int life = 0; life < 20; life++)
        {
            ImageDriver disk = Open($"qcow2:{path}", stateFolder: State);
            await WorkAsync(disk, random, may, random.Next(20));
            File.Copy(path, PathOf("backup"), overwrite: true);
            List<byte>[] then = [.. may.Select(values => values.ToList())];
            await Task.Delay(ImageGeneration.MaxAge); // an older copy only can be told from the file
            await WorkAsync(disk, random, may, 1 + random.Next(20));
            await KillAsync(disk);
            if (random.Next(3) > 0)
            {
                Restore(path);
                may = then;
            }

            disk = Open($"qcow2:{path}", stateFolder: State);
            byte[] now = await disk.ReadAsync(0, 4 * MiB);
            for (int i = 0; i < may.Length; i++)
            {
                byte[] content = now[(i * Sector)..((i + 1) * Sector)];
                if (!may[i].Contains(content[0]) || content.Distinct().Count() > 1)
                {
                    Assert.Fail($"life {life}, sector {i}: it has {string.Join(", ", content.Distinct())}, "
                        + $"and may have {string.Join(", ", may[i])}");
                }

                may[i] = [content[0]];
            }

            await disk.FlushAsync();
            if (random.Next(2) == 0) await disk.Image.DisposeAsync();
            else await KillAsync(disk);
        }

        Run("qemu-img", "check", "-q", "-r", "leaks", path);
    }

    [Test]
    public async Task A_log_replaces_no_repair_of_what_another_program_left()
    {
        string path = MakeByQemu("a.qcow2", 64 * MiB, "-o", "lazy_refcounts=on");
        ImageDriver disk = Open($"qcow2:{path}", stateFolder: State);
        await disk.WriteAsync(0, Filled(1, MiB));
        await KillAsync(disk);
        TryRun("qemu-io", "-c", "write -P 2 0 4M", "-c", "flush", "-c", "abort", path); // dirty, counts too low

        disk = Open($"qcow2:{path}", stateFolder: State);
        await using (disk.Image)
        {
            await disk.WriteAsync(20 * MiB, Filled(9, 8 * MiB));
            Assert.That(await disk.ReadAsync(0, 4 * MiB), Is.All.EqualTo(2));
        }

        Assert.That(Warnings, Has.Some.Contains("its refcounts were repaired"));
        Assert.That(Run("qemu-img", "check", path), Does.Contain("No errors"));
    }

    [Test]
    public async Task A_disk_that_nobody_used_again_is_complete_when_it_is_closed()
    {
        string path = MakeByQemu("a.qcow2", 4 * MiB);
        await LeaveAsync(path);

        await Open($"qcow2:{path}", stateFolder: State).Image.DisposeAsync();
        Assert.That(Directory.GetFiles(State), Is.Empty);
        Assert.That(Run("qemu-io", "-r", "-c", "read -P 5 1M 1M", path), Does.Not.Contain("failed"));
        Assert.That(Run("qemu-img", "check", path), Does.Contain("No errors"));
    }

    [Test]
    public async Task Logs_of_images_that_are_gone_are_removed()
    {
        foreach (string name in (string[])["deleted", "moved", "replaced", "open"])
        {
            ImageDriver disk = Open($"qcow2:{MakeByQemu(name, 4 * MiB)}", stateFolder: State);
            await disk.WriteAsync(0, Filled(1, MiB));
            if (name is "deleted" or "replaced") await disk.FlushAsync(); // the log has no changes
            await KillAsync(disk);
        }

        File.Delete(PathOf("deleted"));
        Directory.CreateDirectory(PathOf("elsewhere"));
        File.Move(PathOf("moved"), PathOf("elsewhere/moved"));
        File.Delete(PathOf("replaced"));
        MakeByQemu("replaced", 4 * MiB);
        ImageDriver open = Open($"qcow2:{PathOf("open")}", stateFolder: State);
        File.Delete(PathOf("open"));
        MetadataLogOrphans.Remove(State, Warnings.Add);
        Assert.That(Directory.GetFiles(State), Has.Length.EqualTo(2));
        await open.Image.DisposeAsync();

        ImageDriver moved = Open($"qcow2:{PathOf("elsewhere/moved")}", stateFolder: State);
        await using (moved.Image) Assert.That(await moved.ReadAsync(0, MiB), Is.All.EqualTo(1));
        Assert.That(Directory.GetFiles(State), Is.Empty);
        Assert.That(Warnings, Is.Empty);
    }

    [Test]
    public async Task Copies_of_a_killed_daemons_image_have_what_it_answered([Values] bool isReplaced)
    {
        string path = MakeByQemu("a.qcow2", 4 * MiB), copy = PathOf("copy");
        await LeaveAsync(path);
        File.Copy(path, copy);
        if (isReplaced)
        {
            File.Move(copy, path, overwrite: true);
            MetadataLogOrphans.Remove(State, Warnings.Add);
            copy = path;
        }

        Assert.That(
            () => Open($"qcow2:{copy}", isReadOnly: true, stateFolder: State), Throws.TypeOf<TargetException>());
        ImageDriver disk = Open($"qcow2:{copy}", stateFolder: State);
        Assert.That(await disk.ReadAsync(MiB, MiB), Is.All.EqualTo(5));
        await disk.WriteAsync(2 * MiB, Filled(6, MiB));
        await KillAsync(disk);
        disk = Open($"qcow2:{copy}", stateFolder: State);
        await using (disk.Image)
        {
            Assert.That(await disk.ReadAsync(MiB, MiB), Is.All.EqualTo(5));
            Assert.That(await disk.ReadAsync(2 * MiB, MiB), Is.All.EqualTo(6));
        }

        Assert.That(Warnings, Is.Empty);
        disk = Open($"qcow2:{path}", stateFolder: State);
        await using (disk.Image)
        {
            Assert.That(await disk.ReadAsync(MiB, MiB), Is.All.EqualTo(5));
            if (!isReplaced) Assert.That(await disk.ReadAsync(2 * MiB, MiB), Is.All.Zero);
        }

        Assert.That(Warnings, Is.Empty);
        Assert.That(Run("qemu-img", "check", path), Does.Contain("No errors"));
        Assert.That(Run("qemu-img", "check", copy), Does.Contain("No errors"));
    }

    // Two copies of one moment: neither takes the changes of the other.
    [Test]
    public async Task Copies_that_went_on_apart_have_no_state_in_common([Values] bool isFlushed)
    {
        string path = MakeByQemu("a.qcow2", 4 * MiB), copy = PathOf("copy");
        ImageDriver disk = Open($"qcow2:{path}", stateFolder: State);
        await disk.WriteAsync(0, Filled(1, MiB));
        if (isFlushed) await disk.FlushAsync();
        await KillAsync(disk);
        File.Copy(path, copy);
        foreach ((string branch, int at, byte value) in new[] { (copy, 3 * MiB, (byte)3), (path, 2 * MiB, (byte)2) })
        {
            disk = Open($"qcow2:{branch}", stateFolder: State);
            await disk.WriteAsync(at, Filled(value, 65536));
            await KillAsync(disk);
        }

        File.Copy(path, PathOf("backup"));
        using (FileStream image = new(path, FileMode.Open))
        {
            using FileStream other = File.OpenRead(copy);
            other.CopyTo(image); // the other branch is in the file of the first now
        }

        disk = Open($"qcow2:{path}", stateFolder: State);
        await using (disk.Image)
        {
            Assert.That(await disk.ReadAsync(0, MiB), Is.All.EqualTo(1));
            Assert.That(await disk.ReadAsync(2 * MiB, 65536), Is.All.Zero);
            Assert.That(await disk.ReadAsync(3 * MiB, 65536), Is.All.EqualTo(3));
        }
    }

    [Test]
    public async Task A_copy_of_an_image_that_is_open_again_has_its_changes_or_says_so([Values] bool hasGoneOn)
    {
        string path = MakeByQemu("a.qcow2", 4 * MiB), copy = PathOf("copy");
        await LeaveAsync(path);
        File.Copy(path, copy);
        ImageDriver disk = Open($"qcow2:{path}", stateFolder: State);
        if (hasGoneOn) await disk.FlushAsync();
        await using (disk.Image)
        {
            if (hasGoneOn)
                await Open($"qcow2:{copy}", isReadOnly: true, stateFolder: State).Image.DisposeAsync();
            Assert.That(Warnings, hasGoneOn ? Has.Exactly(1).Contains("may be missing") : Is.Empty);
            ImageDriver other = Open($"qcow2:{copy}", stateFolder: State);
            await using (other.Image)
                Assert.That(await other.ReadAsync(MiB, MiB), Is.All.EqualTo(hasGoneOn ? 0 : 5));
        }

        Assert.That(Warnings, hasGoneOn ? Has.Exactly(2).Contains("may be missing") : Is.Empty);
    }

    [Test]
    public async Task A_log_with_changes_outlives_its_image()
    {
        string path = MakeByQemu("a.qcow2", 4 * MiB);
        await LeaveAsync(path);
        File.Copy(path, PathOf("moved"));
        File.Delete(path);
        MetadataLogOrphans.Remove(State, Warnings.Add);
        ImageDriver disk = Open($"qcow2:{PathOf("moved")}", stateFolder: State);
        await using (disk.Image) Assert.That(await disk.ReadAsync(MiB, MiB), Is.All.EqualTo(5));
        Assert.That(Warnings, Is.Empty);
    }

    [Test]
    public async Task A_log_that_another_process_has_locked_for_a_moment_is_not_lost()
    {
        string path = MakeByQemu("a.qcow2", 4 * MiB);
        await LeaveAsync(path);

        Task<ImageDriver> opening;
        using (FileDescriptor log = FileDescriptor.Open(Directory.GetFiles(State)[0], OpenFlags.O_RDWR))
        {
            Assert.That(OfdLock.TryExclude(log, 0), Is.True);
            opening = Task.Run(() => Open($"qcow2:{path}", stateFolder: State));
            Assert.That(await Task.WhenAny(opening, Task.Delay(100)), Is.Not.SameAs(opening), "it waits");
        }

        ImageDriver disk = await opening;
        await using (disk.Image) Assert.That(await disk.ReadAsync(MiB, MiB), Is.All.EqualTo(5));
    }

    [Test]
    public void Logs_whose_images_cannot_be_looked_for_are_bounded()
    {
        Directory.CreateDirectory(State);
        for (int i = 0; i < MetadataLogOrphans.MaxUnknown + 3; i++)
        {
            string log = Path.Combine(State, string.Create(CultureInfo.InvariantCulture, $"1-{i:x}.qcow2-log"));
            File.WriteAllText(log, "a log of another version");
            File.SetLastWriteTimeUtc(log, DateTime.UnixEpoch.AddDays(i));
        }

        MetadataLogOrphans.Remove(State, Warnings.Add);
        Assert.That(Directory.GetFiles(State), Has.Length.EqualTo(MetadataLogOrphans.MaxUnknown));
        Assert.That(File.Exists(Path.Combine(State, "1-2.qcow2-log")), Is.False);
        Assert.That(Warnings, Has.Count.EqualTo(3));
    }

    private static async Task WorkAsync(ImageDriver disk, Random random, List<byte>[] may, int count)
    {
        for (int n = 0; n < count; n++)
        {
            const int Clusters = 4 * MiB / Cluster;
            int first = random.Next(Clusters), length = 1 + random.Next(Math.Min(4, Clusters - first));
            byte value = (byte)random.Next(256);
            switch (random.Next(5))
            {
                case 0:
                    await disk.FlushAsync();
                    foreach (List<byte> values in may) values.RemoveRange(0, values.Count - 1);
                    continue;
                case 1:
                    await disk.DiscardAsync((long)first * Cluster, length * Cluster);
                    value = 0;
                    break;
                default:
                    await disk.WriteAsync((long)first * Cluster, Filled(value, length * Cluster));
                    break;
            }

            foreach (List<byte> values in may.AsSpan(first * SectorsPerCluster, length * SectorsPerCluster))
                values.Add(value);
        }
    }

    private static byte[] Filled(byte value, int length)
    {
        byte[] bytes = new byte[length];
        bytes.AsSpan().Fill(value);
        return bytes;
    }

    // Into the same inode.
    private void Restore(string path)
    {
        using FileStream image = new(path, FileMode.Truncate);
        using FileStream backup = File.OpenRead(PathOf("backup"));
        backup.CopyTo(image);
    }

    // A process writes 5 to the second MiB, and is killed.
    private async Task LeaveAsync(string path)
    {
        ImageDriver disk = Open($"qcow2:{path}", stateFolder: State);
        await disk.WriteAsync(MiB, Filled(5, MiB));
        await KillAsync(disk);
    }

    private static async Task KillAsync(ImageDriver disk) => await ((Qcow2Image)disk.Image).AbandonAsync();
}
