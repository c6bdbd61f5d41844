using System.Buffers.Binary;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Handlers;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Parallax;

/// <summary>A VDI that becomes again what it was.</summary>
public sealed class VdiRollbackTests : VdiFixture
{
    private const int Blocks = 64;
    private const int DiskSize = 8 * MiB;

    [Test]
    public async Task Each_write_is_before_or_after_a_rollback([Values(1, 2, 3)] int seed)
    {
        Create("web", DiskSize);
        ImageDriver disk = Open("web");
        Random random = new(seed);
        byte[] shadow = new byte[DiskSize];
        await disk.WorkAsync(shadow, random, 100);
        await SnapshotAsync(disk, "s");
        if (seed % 2 == 0) await CheckpointAsync(disk);
        for (int round = 0; round < 5; round++)
        {
            byte[] other = new byte[Blocks * 4096];
            random.NextBytes(other);
            for (int block = 0; block < Blocks; block++)
                BinaryPrimitives.WriteInt64LittleEndian(other.AsSpan(block * 4096), 0);
            await disk.WriteAsync(0, other);
            long[] answered = new long[Blocks];
            using CancellationTokenSource enough = new();
            Task[] writers = [
                .. Enumerable.Range(0, Blocks).Select(block => WriteAsync(disk, block, answered, enough.Token))];
            while (answered.Min() < 3) await Task.Yield();
            long[] before = [.. answered];
            string snapshot = await RollBackAsync(disk, "s");
            long[] after = [.. answered];
            await enough.CancelAsync();
            await Task.WhenAll(writers).WaitAsync(Soon);

            long[] kept = new long[Blocks];
            ImageDriver old = Open($"web@{snapshot}", isReadOnly: true);
            await using (old.Image)
            {
                for (int block = 0; block < Blocks; block++)
                    Assert.That(
                        kept[block] = await CountAsync(old, block), Is.InRange(before[block], after[block] + 1),
                        $"{snapshot} has what was answered before");
            }

            if (round % 2 == 1)
            {
                await AbandonAsync(disk);
                disk = Open("web");
            }

            byte[] now = await disk.ReadAsync(0, DiskSize);
            Assert.That(
                now.AsSpan(Blocks * 4096).SequenceEqual(shadow.AsSpan(Blocks * 4096)),
                "what nobody writes is as it was then");
            for (int block = 0; block < Blocks; block++)
            {
                int at = block * 4096, length = LengthOf(block);
                bool isOld = now.AsSpan(at, length).SequenceEqual(shadow.AsSpan(at, length));
                Assert.That(now.AsSpan(at + length, 4096 - length)
                    .SequenceEqual(shadow.AsSpan(at + length, 4096 - length)),
                    $"what is beside a part of block {block} is as it was then");
                long count = BinaryPrimitives.ReadInt64LittleEndian(now.AsSpan(at));
                if (answered[block] > after[block] + 1)
                    Assert.That(count, Is.EqualTo(answered[block]), "the last write of a block came after");
                else
                    Assert.That(
                        isOld || count > kept[block], $"block {block} has {count}, and {snapshot} {kept[block]}");
            }
        }

        await disk.Image.DisposeAsync();
        Assert.That(Warnings, Is.Empty);
    }

    [Test]
    public async Task A_rollback_brings_back_the_size()
    {
        Create("web", DiskSize);
        ImageDriver disk = Open("web");
        byte[] shadow = new byte[DiskSize];
        await disk.WorkAsync(shadow, new Random(4), 50);
        await SnapshotAsync(disk, "small");
        await OnAsync(async () =>
        {
            await ((VdiImage)disk.Image).ResizeAsync(2 * DiskSize);
            return true;
        });
        Assert.That(disk.Image.Remeasure());
        await disk.WriteAsync(DiskSize, new byte[4096]);
        await RollBackAsync(disk, "small");
        Assert.That(
            (disk.Image.Remeasure(), disk.Image.Geometry.SectorCount), Is.EqualTo((true, (ulong)DiskSize / 512)));
        await HoldsAsync(disk, shadow, "as it was");
        await disk.Image.DisposeAsync();
        ImageDriver again = Open("web");
        Assert.That(again.Image.Geometry.SectorCount, Is.EqualTo((ulong)DiskSize / 512));
        await HoldsAsync(again, shadow, "opened again");
        await again.Image.DisposeAsync();
    }

    // Of some blocks only the first sector is written, so that the rest is read for that.
    private static int LengthOf(int block) => block % 2 == 1 ? 512 : 4096;

    // Each block has a count of its own, in all that is written to it.
    private static async Task WriteAsync(ImageDriver disk, int block, long[] answered, CancellationToken enough)
    {
        byte[] data = new byte[LengthOf(block)];
        for (long count = 1; !enough.IsCancellationRequested; count++)
        {
            BinaryPrimitives.WriteInt64LittleEndian(data, count);
            await disk.WriteAsync(block * 4096, data);
            Volatile.Write(ref answered[block], count);
        }
    }

    private static async Task<long> CountAsync(ImageDriver disk, int block) =>
        BinaryPrimitives.ReadInt64LittleEndian(await disk.ReadAsync(block * 4096, 512));

    private async Task<string> RollBackAsync(ImageDriver disk, string snapshot) => (await OnAsync(() =>
        RollbackHandler.Instance.RunAsync(
            new RollbackRequest(snapshot),
            new VdiHolder(Store, (VdiImage)disk.Image, Warnings.Add, IsInUse: false)))).Kept;
}
