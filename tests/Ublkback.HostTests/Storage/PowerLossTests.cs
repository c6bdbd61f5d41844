using System.Buffers.Binary;
using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests.Storage;

/// <summary>
/// A store of VDIs on ext4, on a disk of which QEMU logs each write and flush; and then what is left when the power
/// goes at some of these. What a page cache still has after a death, a loss of power takes.
/// </summary>
public sealed class PowerLossTests : VdiFixture
{
    private const int Blocks = 1024; // of the VDI
    private const int Rounds = 40;
    private const int Losses = 16;

    private StorageDaemon? _storage;
    private string _loop = "";

    private string Mount => Path.Combine(Scratch, "mount");

    private string Log => Path.Combine(Scratch, "log");

    private string Before => Path.Combine(Scratch, "before.raw");

    [SetUp]
    public async Task MakeFileSystem()
    {
        string image = MakeImage("storage.raw", 128 << 20);
        await DoAsync("mkfs.ext4", "-q", "-E", "nodiscard", image);
        File.Copy(image, Before);
        await File.WriteAllBytesAsync(Log, []);
        _storage = await StorageDaemon.StartAsync(
            Scratch, Soon,
            $"driver=file,node-name=file,filename={image}",
            $"driver=file,node-name=log,filename={Log}",
            "driver=blklogwrites,node-name=top,file=file,log=log");
        _loop = (await DoAsync("losetup", "-f", "--show", _storage.Path)).Trim();
        Directory.CreateDirectory(Mount);
        await DoAsync("mount", _loop, Mount);
        StoreOption = $"file:{Mount}/store";
    }

    [TearDown]
    public async Task Unmount()
    {
        await RunOtherAsync("umount", "-l", Mount);
        if (_loop.Length > 0) await RunOtherAsync("losetup", "-d", _loop);
        if (_storage is not null) await _storage.DisposeAsync();
    }

    [Test]
    public async Task A_loss_of_power_leaves_what_was_flushed_and_every_snapshot()
    {
        int seed = Environment.TickCount;
        TestContext.Out.WriteLine($"seed {seed}");
        Random random = new(seed);
        long[] counts = new long[Blocks];
        List<Promise> promises = [];
        List<(long Begin, long End)> collections = [];
        await VdiAsync("create", "web", $"{Blocks * 4096}");
        (_, Blkfront disk) = await ConnectAsync(TargetOf("web"));
        await using (disk)
        {
            for (int round = 1; round <= Rounds; round++)
            {
                foreach (int block in Enumerable.Range(0, 24).Select(_ => random.Next(Blocks)).Distinct())
                {
                    Assert.That(await disk.WriteAsync((ulong)block * 8, Fill(round)), Is.EqualTo(BlkifStatus.Okay));
                    counts[block] = round;
                }

                string? snapshot = round % 8 == 0 ? $"s{round}" : null;
                if (snapshot is not null) await VdiAsync("snapshot", "web", snapshot);
                else Assert.That(await disk.FlushAsync(), Is.EqualTo(BlkifStatus.Okay));
                promises.Add(new Promise(new FileInfo(Log).Length, snapshot, [.. counts]));
                if (round % 10 != 5) continue;
                long begin = new FileInfo(Log).Length;
                await VdiAsync("gc");
                collections.Add((begin, new FileInfo(Log).Length));
            }

            await KillAsync();
        }

        using WriteLog log = new(Log, Before);
        IReadOnlyList<(long Begin, long End)> flushes = log.FindFlushes();
        // After some promises, at flushes between them, and when a checkpoint has written its head and not yet flushed
        // it.
        long[] moments = [.. random.GetItems(promises.Select(promise => promise.Position).ToArray(), Losses / 4)
            .Concat(random.GetItems(flushes.Where(flush => flush.End >= promises[0].Position).Select(flush => flush.End)
                .ToArray(), Losses / 4))
            .Concat(random.GetItems(flushes.Where(flush => collections.Exists(gc =>
                flush.Begin >= gc.Begin && flush.End <= gc.End)).Select(flush => flush.Begin).ToArray(), Losses / 2))
            .Order()];
        foreach (long moment in moments)
        {
            log.ReplayTo(moment);
            await CheckAsync(moment, promises, counts);
        }
    }

    // What there is when the power goes at a moment.
    private async Task CheckAsync(long moment, List<Promise> promises, long[] last)
    {
        string image = Path.Combine(Scratch, "loss.raw"), mount = Path.Combine(Scratch, "loss");
        File.Copy(Before, image, overwrite: true);
        Directory.CreateDirectory(mount);
        await DoAsync("mount", "-o", "loop", image, mount);
        try
        {
            string store = $"file:{mount}/store";
            Assert.That(await VdiAsync("fsck", "--store", store), Does.Contain("all is whole"), $"at {moment}");
            List<Promise> kept = promises.FindAll(promise => promise.Position <= moment);
            long[] now = await ExportAsync("web", store);
            for (int block = 0; block < Blocks; block++)
                Assert.That(
                    now[block], Is.InRange(kept[^1].Counts[block], last[block]),
                    $"at {moment}, of which {kept[^1].Position} was promised: block {block}");
            if (kept.FindLast(promise => promise.Snapshot is not null) is Promise snapshot)
                Assert.That(
                    await ExportAsync($"web@{snapshot.Snapshot}", store), Is.EqualTo(snapshot.Counts),
                    $"at {moment}: {snapshot.Snapshot}");
        }
        finally
        {
            await DoAsync("umount", mount);
        }
    }

    // The count that each block of a disk has; a block that has parts of two is wrong.
    private async Task<long[]> ExportAsync(string name, string store)
    {
        string path = Path.Combine(Scratch, "export.raw");
        File.Delete(path);
        await VdiAsync("export", name, path, "--store", store);
        byte[] content = await File.ReadAllBytesAsync(path);
        return [.. Enumerable.Range(0, Blocks).Select(block =>
        {
            ReadOnlySpan<byte> data = content.AsSpan(block * 4096, 4096);
            long count = BinaryPrimitives.ReadInt64LittleEndian(data);
            Assert.That(
                data.SequenceEqual(count == 0 ? new byte[4096] : Fill(count)),
                $"block {block} of {name} is nothing that was written");
            return count;
        })];
    }

    private static byte[] Fill(long count)
    {
        byte[] data = new byte[4096];
        new Random((int)count).NextBytes(data);
        BinaryPrimitives.WriteInt64LittleEndian(data, count);
        return data;
    }

    private static async Task<string> DoAsync(string program, params string[] arguments)
    {
        string result = await RunOtherAsync(program, arguments);
        Assert.That(result, Does.StartWith("0:"), $"{program} {string.Join(' ', arguments)}");
        return result[2..];
    }

    // What was promised when the log had come to a position: what the disk holds, and the snapshot that was made then.
    private sealed record Promise(long Position, string? Snapshot, long[] Counts);
}
