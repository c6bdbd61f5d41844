using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Parallax.Admin;
using Ublkback.Parallax.Collect;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Stores;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Parallax;

/// <summary>What is not needed is given back; what is needed is not, whoever needs it.</summary>
public sealed class VdiCollectorTests : VdiFixture
{
    private const int DiskSize = 8 * MiB;

    [Test]
    public async Task What_was_written_over_is_given_back()
    {
        Create("web", DiskSize);
        ImageDriver disk = Open("web");
        byte[] shadow = new byte[DiskSize];
        Random random = new(1);
        for (int i = 0; i < 12; i++)
        {
            random.NextBytes(shadow);
            await disk.WriteAsync(0, shadow);
        }

        Assert.That(await CollectAsync(disk), Is.GreaterThan(60 * MiB / 4096));
        // once, and segments that are not full or not used yet
        Assert.That(DiskUsage.Of(PathOf("web")), Is.LessThan(40 * MiB));
        await HoldsAsync(disk, shadow, "afterwards");
        await disk.Image.DisposeAsync();
        ImageDriver again = Open("web");
        await using (again.Image) await HoldsAsync(again, shadow, "opened again");
    }

    [Test]
    public async Task Segments_of_which_little_is_needed_are_emptied([Values] bool hasSnapshot)
    {
        Create("web", DiskSize);
        ImageDriver disk = Open("web");
        byte[] shadow = new byte[DiskSize];
        Random random = new(7);
        byte[] block = new byte[4096];
        for (int i = 0; i < 8 * DiskSize / 4096; i++) // each segment keeps some of its blocks
        {
            random.NextBytes(block);
            int at = random.Next(DiskSize / 4096) * 4096;
            block.CopyTo(shadow, at);
            await disk.WriteAsync(at, block);
        }

        byte[] kept = [.. shadow];
        if (hasSnapshot)
        {
            await SnapshotAsync(disk, "kept");
            await disk.WriteAsync(0, shadow);
        }

        await CollectAsync(disk);
        int before = UsedSegments(disk);
        Collector collector = new(Store, Warnings.Add) { MovesAll = true };
        Task writing = Task.Run(async () =>
        {
            for (int i = 0; i < 200; i++)
            {
                int at = random.Next(DiskSize / 4096) * 4096;
                random.NextBytes(shadow.AsSpan(at, 4096));
                await disk.WriteAsync(at, shadow.AsMemory(at, 4096).ToArray());
            }
        });
        await collector.RunAsync([(VdiImage)disk.Image], withUnnamed: false);
        await writing;
        TestContext.Out.WriteLine($"{before} segments before, {UsedSegments(disk)} after");
        // What is needed is 2 segments, or 4; those of the log and of nodes that are not full, and five in advance.
        if (!hasSnapshot) Assert.That(UsedSegments(disk), Is.LessThan(before / 2 + 5).And.LessThan(before - 4));
        await HoldsAsync(disk, shadow, "afterwards");
        await AbandonAsync(disk);
        disk = Open("web");
        await HoldsAsync(disk, shadow, "opened again, as after a death");
        await disk.Image.DisposeAsync();
        Assert.That(Vdis.Check(null, true, Warnings.Add).Damages, Is.Zero);
        if (!hasSnapshot) return;
        ImageDriver snapshot = Open("web@kept", isReadOnly: true);
        await using (snapshot.Image) await HoldsAsync(snapshot, kept, "the snapshot");
    }

    // A guest that changes a part of a block has that block, and may wait for the collection.
    [Test]
    public async Task Blocks_that_a_guest_is_about_to_write_are_not_moved()
    {
        (ImageDriver disk, byte[] shadow) = await OpenFilledAsync(5);
        await OnAsync(async () =>
        {
            VdiParts parts = Parts(disk);
            BlockClaims claims = parts.Claims;
            await claims.ClaimAsync(7, 1);
            Assert.That(await MoveAsync(7), Is.Null);
            Assert.That(await MoveAsync(8), Is.EqualTo(BlockStatus.Okay));
            claims.Release(7, 1);
            Assert.That(await MoveAsync(7), Is.EqualTo(BlockStatus.Okay));
            return true;

            async Task<BlockStatus?> MoveAsync(long block) => await parts.Writer.TryMoveAsync(
                block, (await parts.Reader.FindRunAsync(block, 1)).First.Address,
                shadow.AsMemory((int)block * 4096, 4096));
        });
        await HoldsAsync(disk, shadow, "afterwards");
        await disk.Image.DisposeAsync();
    }

    [Test]
    public async Task What_a_guest_wrote_after_a_block_was_read_to_be_moved_stays()
    {
        (ImageDriver disk, byte[] shadow) = await OpenFilledAsync(6);
        await OnAsync(async () =>
        {
            VdiParts parts = Parts(disk);
            byte[] before = shadow[..8192];
            (_, MapEntry first, _) = await parts.Reader.FindRunAsync(0, 2);
            Array.Fill(shadow, (byte)7, 0, 4096);
            await parts.Writer.WriteAsync(0, shadow.AsMemory(0, 4096));
            for (int i = 0; i < 2; i++)
            {
                BlockAddress at = new(first.Address.Value + (ulong)i);
                Memory<byte> content = before.AsMemory(i * 4096, 4096);
                Assert.That(await parts.Writer.TryMoveAsync(i, at, content), Is.EqualTo(BlockStatus.Okay));
                Assert.That((await parts.Reader.FindRunAsync(i, 1)).First.Address, Is.Not.EqualTo(at), "moved");
            }

            return true;
        });
        await HoldsAsync(disk, shadow, "afterwards");
        await disk.Image.DisposeAsync();
    }

    [Test]
    public async Task Nothing_is_moved_while_somebody_has_the_disk_alone()
    {
        Create("web", DiskSize);
        ImageDriver disk = Open("web");
        await disk.WriteAsync(0, new byte[DiskSize]);
        await CheckpointAsync(disk);
        VdiImage image = (VdiImage)disk.Image;
        (long, int)[] sparse = [.. image.Parts.Container.FindUsedSegments().Select(segment => (segment, 1))];
        Task<long> EmptyAsync() => new SparseSegments(image, number => Store.OpenOther(number, Warnings.Add))
            .EmptyAsync(image.Parts.Content.Checkpoint, sparse, double.MaxValue, freed: 0);
        Assert.That(await OnAsync(() => image.Parts.Epochs.RunAloneAsync(EmptyAsync)), Is.Zero);
        Assert.That(await OnAsync(EmptyAsync), Is.EqualTo(DiskSize / 4096));
        await disk.Image.DisposeAsync();
    }

    private async Task<(ImageDriver Disk, byte[] Shadow)> OpenFilledAsync(int seed)
    {
        Create("web", DiskSize);
        ImageDriver disk = Open("web");
        byte[] shadow = new byte[DiskSize];
        new Random(seed).NextBytes(shadow);
        await disk.WriteAsync(0, shadow);
        return (disk, shadow);
    }

    private static int UsedSegments(ImageDriver disk) => Parts(disk).Container.FindUsedSegments().Count();

    [Test]
    public async Task What_only_deleted_snapshots_needed_is_given_back_though_others_share_their_log()
    {
        Create("web", DiskSize);
        ImageDriver disk = Open("web");
        Random random = new(3);
        byte[][] contents = new byte[4][];
        for (int i = 0; i < contents.Length; i++)
        {
            contents[i] = i == 0 ? new byte[DiskSize] : [.. contents[i - 1]];
            random.NextBytes(contents[i].AsSpan(0, DiskSize * 7 / 8));
            await disk.WriteAsync(0, contents[i]);
            if (i == 2)
            {
                await disk.DiscardAsync(MiB, 2 * MiB);
                contents[i].AsSpan(MiB, 2 * MiB).Clear();
            }

            await SnapshotAsync(disk, $"s{i}");
        }

        VdiAdmin store = Vdis;
        await CollectAsync(disk);
        foreach (int deleted in new[] { 0, 1 })
        {
            await store.DeleteSnapshotAsync("web", $"s{deleted}").WaitAsync(Soon);
            Assert.That(await CollectAsync(disk), Is.GreaterThan(6 * MiB / 4096), $"what s{deleted} alone needed");
        }

        await disk.Image.DisposeAsync();
        Assert.That(store.Check(null, true, Warnings.Add).Damages, Is.Zero);
        for (int i = 2; i < contents.Length; i++)
        {
            ImageDriver snapshot = Open($"web@s{i}", isReadOnly: true);
            await using (snapshot.Image) await HoldsAsync(snapshot, contents[i], $"s{i}");
        }

        disk = Open("web");
        await HoldsAsync(disk, contents[3], "the disk");
        await disk.Image.DisposeAsync();
    }

    [Test]
    public async Task What_is_written_between_the_marking_and_the_freeing_is_spared([Values(1, 2, 3)] int seed)
    {
        Create("web", DiskSize);
        ImageDriver disk = Open("web");
        byte[] shadow = new byte[DiskSize];
        Random random = new(seed);
        await disk.WorkAsync(shadow, random, 100);
        await CheckpointAsync(disk); // so that there is a segment of nodes already, which is not full
        await disk.WorkAsync(shadow, random, 100);
        CollectionRun vdi = await OnAsync(() => CollectionRun.BeginAsync((VdiImage)disk.Image));
        BlockMarks marks = new();
        vdi.Mark(marks);
        using (VersionWalker walker = new(number => Store.OpenOther(number, Warnings.Add), marks))
            walker.Walk(vdi.Needed);
        await disk.WorkAsync(shadow, random, 100);
        await CheckpointAsync(disk);
        await disk.WorkAsync(shadow, random, 100);
        await OnAsync(() => vdi.FreeAsync(marks, () => true));
        vdi.End();
        await HoldsAsync(disk, shadow, "afterwards");
        await AbandonAsync(disk);
        disk = Open("web");
        await HoldsAsync(disk, shadow, "opened again, as after a death");
        await disk.Image.DisposeAsync();
    }

    [Test]
    public async Task Guests_snapshots_and_clones_lose_nothing_while_it_collects([Values(1, 2, 3)] int seed)
    {
        Create("web", DiskSize);
        ImageDriver disk = Open("web");
        byte[] shadow = new byte[DiskSize];
        Random random = new(seed);
        Dictionary<string, byte[]> kept = [];
        VdiAdmin store = Vdis;
        for (int round = 0; round < 16; round++)
        {
            Task collecting = CollectAsync(disk);
            await disk.WorkAsync(shadow, random, 60);
            await SnapshotAsync(disk, $"s{round}");
            kept[$"web@s{round}"] = [.. shadow];
            if (round % 4 == 1)
            {
                await Task.Run(() => store.Clone($"web@s{round}", $"clone{round}"));
                kept[$"clone{round}"] = [.. shadow];
            }

            if (round % 3 == 2)
            {
                await store.DeleteSnapshotAsync("web", $"s{round - 1}").WaitAsync(Soon);
                kept.Remove($"web@s{round - 1}");
            }

            await disk.WorkAsync(shadow, random, 60);
            await collecting;
        }

        await CollectAsync(disk);
        await HoldsAsync(disk, shadow, "the disk itself");
        await disk.Image.DisposeAsync();
        Assert.That(store.Check(null, true, Warnings.Add).Damages, Is.Zero);
        foreach ((string name, byte[] content) in kept)
        {
            ImageDriver reader = Open(name, isReadOnly: true);
            await using (reader.Image) await HoldsAsync(reader, content, name);
        }

        // A clone that is written to goes its own way.
        ImageDriver clone = Open("clone5");
        byte[] other = kept["clone5"];
        await using (clone.Image)
        {
            await clone.WorkAsync(other, random, 100);
            await CollectAsync(clone);
            await HoldsAsync(clone, other, "a clone");
        }

        Assert.That(Warnings, Is.Empty);
    }

    [Test]
    public async Task A_vdi_that_was_rolled_back_keeps_its_snapshots()
    {
        Create("web", DiskSize);
        ImageDriver disk = Open("web");
        byte[] shadow = new byte[DiskSize];
        Random random = new(2);
        await disk.WorkAsync(shadow, random, 50);
        await SnapshotAsync(disk, "s");
        byte[] kept = [.. shadow];
        await disk.WorkAsync(shadow, random, 50);
        await disk.Image.DisposeAsync();
        VdiAdmin store = Vdis;
        string before = await store.RollBackAsync("web@s", whileUsed: false).WaitAsync(Soon);
        await store.CollectAsync().WaitAsync(Soon);
        Dictionary<string, byte[]> expected = new() { ["web"] = kept, ["web@s"] = kept, [$"web@{before}"] = shadow };
        for (int time = 0; time < 2; time++)
        {
            foreach ((string name, byte[] content) in expected)
            {
                ImageDriver reader = Open(name, isReadOnly: true);
                await using (reader.Image) await HoldsAsync(reader, content, $"{name}, time {time}");
            }

            // The second time it has been written to, and its snapshots are those of before.
            ImageDriver again = Open("web");
            await again.WorkAsync(kept, random, 50);
            await CheckpointAsync(again);
            await CollectAsync(again);
            await again.Image.DisposeAsync();
            expected = new() { ["web"] = kept, [$"web@{before}"] = shadow };
        }
    }

    [Test]
    public async Task A_deleted_vdi_is_kept_as_long_as_clones_read_it()
    {
        Create("golden", DiskSize);
        ImageDriver disk = Open("golden");
        byte[] shadow = new byte[DiskSize];
        new Random(4).NextBytes(shadow);
        await disk.WriteAsync(0, shadow);
        await SnapshotAsync(disk, "v1");
        await disk.Image.DisposeAsync();
        VdiAdmin store = Vdis;
        store.Clone("golden@v1", "web");
        string path = PathOf("golden");
        await store.DeleteAsync("golden", withSnapshots: true).WaitAsync(Soon);
        await store.CollectDeletedAsync().WaitAsync(Soon);
        ImageDriver clone = Open("web");
        await HoldsAsync(clone, shadow, "the clone");
        await clone.DiscardAsync(0, DiskSize);
        await clone.Image.DisposeAsync();
        Assert.That(File.Exists(path));
        await store.CollectAsync().WaitAsync(Soon);
        Assert.That(File.Exists(path), Is.False);
    }

    [Test]
    public async Task Compacting_puts_together_what_was_written_here_and_there()
    {
        Create("web", DiskSize);
        ImageDriver disk = Open("web");
        byte[] shadow = new byte[DiskSize];
        Random random = new(6);
        foreach (int block in Enumerable.Range(0, 1024).OrderBy(_ => random.Next()))
        {
            random.NextBytes(shadow.AsSpan(block * 4096, 4096));
            await disk.WriteAsync(block * 4096, shadow[(block * 4096)..((block + 1) * 4096)]);
        }

        Task working = disk.WorkAsync(shadow, random, 100);
        (BlockStatus status, long written) = await CompactAsync(disk);
        await working;
        Assert.That(
            (status, written),
            Is.EqualTo((BlockStatus.Okay, written)).And.Matches<(BlockStatus, long Written)>(
                result => result.Written >= 900));
        await HoldsAsync(disk, shadow, "compacted");
        await CompactAsync(disk); // what was written meanwhile
        (status, written) = await CompactAsync(disk);
        Assert.That(written, Is.Zero, "all is together now");
        await disk.Image.DisposeAsync();
    }

    private string PathOf(string name) => Store.PathOf(Store.Find(name));

    private Task<(BlockStatus Status, long Written)> CompactAsync(ImageDriver disk) =>
        OnAsync(() => new Compactor(Parts(disk), CancellationToken.None).RunAsync());

    private async Task<long> CollectAsync(ImageDriver disk)
    {
        Collector collector = new(Store, Warnings.Add);
        await collector.RunAsync([(VdiImage)disk.Image], withUnnamed: false).WaitAsync(Soon);
        return collector.Freed;
    }
}
