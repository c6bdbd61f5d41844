using NUnit.Framework;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Parallax;

/// <summary>What is written is read, whatever comes between.</summary>
public sealed class VdiImageTests : VdiFixture
{
    private const int DiskSize = 8 * MiB;

    [Test]
    public async Task Random_work_is_read_back_through_checkpoints_deaths_and_reopening([Values(1, 2, 3)] int seed)
    {
        Create("web", DiskSize);
        byte[] shadow = new byte[DiskSize];
        Random random = new(seed);
        for (int life = 0; life < 6; life++)
        {
            ImageDriver disk = Open("web");
            await HoldsAsync(disk, shadow, $"life {life}");
            await disk.WorkAsync(shadow, random, 200);
            Task checkpoint = life % 2 == 0 ? CheckpointAsync(disk) : Task.CompletedTask;
            await disk.WorkAsync(shadow, random, 100);
            await checkpoint;
            await HoldsAsync(disk, shadow, $"life {life}");
            if (life % 3 == 0) await AbandonAsync(disk);
            else await disk.Image.DisposeAsync();
        }

        Assert.That(Warnings, Is.Empty);
    }

    [Test]
    public async Task Parts_of_one_block_that_are_written_together_are_all_there()
    {
        Create("web", DiskSize);
        ImageDriver disk = Open("web");
        byte[] shadow = new byte[4096];
        Random random = new(8);
        for (int round = 0; round < 50; round++)
        {
            await Task.WhenAll(Enumerable.Range(0, 8).Select(sector =>
            {
                byte[] data = new byte[512];
                random.NextBytes(data);
                data.CopyTo(shadow, sector * 512);
                return disk.WriteAsync(sector * 512, data);
            }));
            await HoldsAsync(disk, shadow, $"round {round}");
        }

        for (int round = 0; round < 50; round++)
        {
            // One that is written as a whole, and a part of it, of which either may be the last.
            random.NextBytes(shadow);
            await Task.WhenAll(disk.WriteAsync(0, [.. shadow]), disk.WriteAsync(0, new byte[512]));
            Assert.That((await disk.ReadAsync(512, 3584)).AsSpan().SequenceEqual(shadow.AsSpan(512)), $"round {round}");
        }

        await disk.Image.DisposeAsync();
    }

    [Test]
    public async Task A_snapshot_and_its_clones_keep_what_was_there()
    {
        Create("web", DiskSize);
        Random random = new(5);
        byte[] shadow = new byte[DiskSize];
        List<byte[]> kept = [];
        ImageDriver disk = Open("web");
        for (int i = 0; i < 5; i++)
        {
            await disk.WorkAsync(shadow, random, 60);
            await SnapshotAsync(disk, $"s{i}");
            kept.Add([.. shadow]);
            if (i == 2) await CheckpointAsync(disk);
            await disk.WorkAsync(shadow, random, 60);
        }

        for (int i = 0; i < 5; i++)
        {
            // While it is written; and after that.
            ImageDriver snapshot = Open($"web@s{i}", isReadOnly: true);
            await using (snapshot.Image) await HoldsAsync(snapshot, kept[i], $"s{i}");
        }

        await disk.Image.DisposeAsync();
        for (int i = 0; i < 5; i++)
        {
            ImageDriver snapshot = Open($"web@s{i}", isReadOnly: true);
            await using (snapshot.Image) await HoldsAsync(snapshot, kept[i], $"s{i}, later");
        }
    }
}
