using Mono.Unix.Native;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Images.Qcow2;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Qcow2.Metadata;
using Ublkback.Linux.Kernel;

namespace Ublkback.Tests.Images.Qcow2;

/// <summary>
/// Storage that fails now and then, and a process that is killed now and then: what was answered is there, a size that
/// was refused comes later only by a kill, and in the end the image is in order, in QEMU's eyes.
/// </summary>
public sealed class Qcow2FaultTests : Qcow2Fixture
{
    private const int Sector = 512;
    private const int FirstSize = 2 * MiB;
    private const int LastSize = 12 * MiB;

    private readonly HashSet<long> _refused = []; // sizes, since it last changed

    [Test]
    public async Task Errors_of_the_storage_lose_nothing_that_was_answered(
        [Values("0.10", "1.1")] string compat, [Values(512, 4096, 65536)] int clusterSize, [Values] bool isKept)
    {
        int seed = int.Parse(
            Environment.GetEnvironmentVariable("UBLKBACK_FAULT_SEED") ?? $"{Environment.TickCount}",
            System.Globalization.CultureInfo.InvariantCulture);
        TestContext.Out.WriteLine($"UBLKBACK_FAULT_SEED={seed}");
        Random random = new(seed);
        string path = MakeByQemu("a.qcow2", FirstSize, "-o", $"compat={compat},cluster_size={clusterSize}");
        List<HashSet<byte>> may = [.. Enumerable.Range(0, FirstSize / Sector).Select(_ => new HashSet<byte> { 0 })];
        (ImageDriver disk, FailingFile storage, RecordingFile file) = Open(path, random, isKept);
        for (int round = 0; round < 40; round++)
        {
            storage.Rate = random.Next(3) == 0 ? 0 : 0.3 * random.NextDouble();
            for (int i = 0; i < 8; i++) await ChangeAsync(disk, may, random, clusterSize);
            storage.Rate = 0;
            Check(await disk.ReadAsync(0, may.Count * Sector), may, $"round {round}");
            if (!isKept || random.Next(5) > 0) continue;
            // Killed: the next process has what the file holds, and the log.
            await ((Qcow2Image)disk.Image).AbandonAsync();
            await File.WriteAllBytesAsync(path, file.Content.ToArray());
            (disk, storage, file) = Open(path, random, isKept);
            AcceptRefusedSize((long)disk.Image.Geometry.SectorCount * Sector, may);
            Check(await disk.ReadAsync(0, may.Count * Sector), may, $"round {round}, after a kill");
        }

        await disk.FlushAsync();
        await disk.Image.DisposeAsync();
        await File.WriteAllBytesAsync(path, file.Content.ToArray());
        (int status, string output) = TryRun("qemu-img", "check", path);
        Assert.That(status, Is.Zero.Or.EqualTo(3), output); // 3: clusters are counted that nobody uses
        Run("qemu-img", "convert", "-O", "raw", path, PathOf("a.raw"));
        Check(await File.ReadAllBytesAsync(PathOf("a.raw")), may, "the end");
    }

    private (ImageDriver Disk, FailingFile Storage, RecordingFile File) Open(string path, Random random, bool isKept)
    {
        string logPath = PathOf("log");
        bool isNew = !File.Exists(logPath);
        MetadataLog log = MetadataLog.InMemory();
        if (isKept)
        {
            if (isNew) File.WriteAllBytes(logPath, new byte[MetadataLog.Size]);
            log = MetadataLog.In(logPath, FileDescriptor.Open(logPath, OpenFlags.O_RDWR), isWritable: true);
            if (isNew) log.Clear();
        }

        RecordingFile file = new(File.ReadAllBytes(path));
        FailingFile storage = new(file, random);
        using Microsoft.Win32.SafeHandles.SafeFileHandle handle = File.OpenHandle(path);
        Qcow2Tables tables = Qcow2Tables.Read(path, handle);
        if (tables.Header.Version < 3 && !isNew) log.Clear(); // it cannot be told that it is this image's
        else if (log.HasChanges) Assert.That(log.IsOf(tables.Header.Generation), "the log is not the image's");
        return (new ImageDriver(Worker, OpenOver(storage, file.Content.Length, storage.SetLength, path, null, log)),
            storage, file);
    }

    private async Task ChangeAsync(
        ImageDriver disk, List<HashSet<byte>> may, Random random, int clusterSize)
    {
        int count = 1 + random.Next(random.Next(3) == 0 ? 400 : 40), first = random.Next(may.Count - count);
        byte value = (byte)random.Next(256);
        switch (random.Next(16))
        {
            case 0 when may.Count * Sector < LastSize:
                await ResizeAsync(disk, may, (may.Count * Sector) + (random.Next(1, 2048) * Sector));
                return;
            case 1 or 2:
                await disk.TryFlushAsync(); // the page cache outlives the process
                return;
            case 3 or 4:
                int sectors = clusterSize / Sector; // the rest of a cluster is not discarded
                (int from, int to) = ((first + sectors - 1) / sectors * sectors, (first + count) / sectors * sectors);
                if (to <= from) return;
                (first, count, value) = (from, to - from, 0);
                BlockStatus discarded = await disk.RunAsync(
                    BlockOperation.Discard, (long)first * Sector, (long)count * Sector, []);
                Note(may, first, count, value, discarded);
                return;
            default:
                BlockStatus written = await disk.TryWriteAsync(
                    (long)first * Sector, [.. Enumerable.Repeat(value, count * Sector)]);
                Note(may, first, count, value, written);
                return;
        }
    }

    private async Task ResizeAsync(ImageDriver disk, List<HashSet<byte>> may, int size)
    {
        try
        {
            await disk.ResizeAsync(size);
            while (may.Count < size / Sector) may.Add([0]);
            _refused.Clear();
        }
        catch (TargetException)
        {
            Assert.That(disk.Image.Remeasure(), Is.False);
            _refused.Add(size);
        }
    }

    // A header whose write failed, and then the write that undoes it, holds the old size or the new.
    private void AcceptRefusedSize(long size, List<HashSet<byte>> may)
    {
        if (size == may.Count * Sector) return;
        Assert.That(_refused, Does.Contain(size), "the size after a kill");
        while (may.Count < size / Sector) may.Add([0]);
        _refused.Clear();
    }

    private static void Note(List<HashSet<byte>> may, int first, int count, byte value, BlockStatus status)
    {
        for (int i = first; i < first + count; i++)
        {
            if (status == BlockStatus.Okay) may[i] = [value];
            else may[i].Add(value);
        }
    }

    private static void Check(byte[] content, List<HashSet<byte>> may, string when)
    {
        Assert.That(content, Has.Length.EqualTo(may.Count * Sector), when);
        for (int i = 0; i < may.Count; i++)
        {
            ReadOnlySpan<byte> sector = content.AsSpan(i * Sector, Sector);
            if (sector.ContainsAnyExcept(sector[0]) || !may[i].Contains(sector[0]))
                Assert.Fail($"{when}: sector {i} holds {sector[0]} and may hold {string.Join(", ", may[i])}");
        }
    }
}
