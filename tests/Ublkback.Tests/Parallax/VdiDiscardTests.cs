using NUnit.Framework;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Map;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Parallax;

/// <summary>Discards of much at once, and what a map is after them.</summary>
public sealed class VdiDiscardTests : VdiFixture
{
    private const long TiB = 1L << 40;

    [Test]
    public async Task A_discard_of_the_largest_disk_costs_no_more_than_one_of_a_gibibyte(
        [Values(1L << 31, 1L << 32, 1L << 47)] long length)
    {
        Create("web", 128 * TiB);
        ImageDriver disk = Open("web");
        foreach (long at in new[] { 0, 5 * TiB, (128 * TiB) - MiB }) await disk.WriteAsync(at, Filled(1));
        await CheckpointAsync(disk);
        foreach (long at in new[] { 4096, 77 * TiB }) await disk.WriteAsync(at, Filled(2));
        int most = 0;
        for (long at = 0; at < 128 * TiB; at += length)
        {
            await disk.DiscardAsync(at, length);
            most = Math.Max(most, Parts(disk).Content.Map.ChangeCount);
        }

        Assert.That(most, Is.LessThan(4096), "changes in memory");
        foreach (long at in new[] { 0, 5 * TiB, 77 * TiB, (128 * TiB) - MiB })
            Assert.That(await disk.ReadAsync(at, MiB), Is.All.Zero);
        await disk.WriteAsync(5 * TiB, Filled(3));
        await CheckpointAsync(disk);
        Assert.That(await disk.ReadAsync(5 * TiB, MiB), Is.All.EqualTo(3));
        await disk.DiscardAsync(0, 128 * TiB);
        await CheckpointAsync(disk);
        Assert.That(Parts(disk).Content.Map.Root.Node, Is.EqualTo(default(MapEntry)));
        await disk.Image.DisposeAsync();
    }

    [Test]
    public async Task A_discard_of_an_empty_disk_writes_nothing()
    {
        Create("web", 128 * TiB);
        ImageDriver disk = Open("web");
        for (long at = 0; at < 128 * TiB; at += 1L << 36) await disk.DiscardAsync(at, 1L << 36);
        Assert.That(Parts(disk).Log.IsOpen, Is.False, "it was never begun");
        await disk.WriteAsync(0, Filled(1));
        await disk.DiscardAsync(0, 128 * TiB);
        await AbandonAsync(disk);
        disk = Open("web");
        await using (disk.Image) await HoldsAsync(disk, new byte[MiB], "opened again");
    }

    // The sizes are where a map needs another level: what is behind the end of the smaller disk is not its root.
    [TestCase(MiB, 2 * MiB)]
    [TestCase(256 * MiB, 257 * MiB)]
    [TestCase(256 * MiB, 1024L * MiB)]
    public async Task A_disk_that_was_larger_for_a_while_holds_what_it_held(long size, long larger)
    {
        Create("web", size);
        ImageDriver disk = Open("web");
        await disk.WriteAsync(0, Filled(1));
        await CheckpointAsync(disk);
        await disk.ResizeAsync(larger);
        await disk.WriteAsync(larger - MiB, Filled(2));
        await disk.ResizeAsync(size);
        await CheckpointAsync(disk);
        await HoldsAsync(disk, Filled(1), "smaller again");
        await disk.ResizeAsync(larger);
        Assert.That(await disk.ReadAsync(larger - MiB, MiB), Is.All.Zero);
        await disk.Image.DisposeAsync();
        disk = Open("web");
        await using (disk.Image) await HoldsAsync(disk, Filled(1), "opened again");
    }

    [Test]
    public async Task Discards_of_every_length_leave_the_map_as_they_should([Values(1, 2, 3, 4)] int seed)
    {
        // Blocks stand for stretches of a disk of 70 TiB, so that all levels of the map are used.
        const int Stretches = 1 << 14;
        const long Stretch = 70 * TiB / Stretches / MiB * MiB;
        Create("web", Stretches * Stretch);
        ImageDriver disk = Open("web");
        Random random = new(seed);
        byte[] shadow = new byte[Stretches];
        for (int round = 0; round < 600; round++)
        {
            int at = random.Next(Stretches), count = Math.Min(Stretches - at, 1 << random.Next(15));
            if (random.Next(3) > 0)
            {
                byte value = (byte)random.Next(1, 255);
                await disk.WriteAsync(at * Stretch, [.. Enumerable.Repeat(value, 4096)]);
                shadow[at] = value;
            }
            else
            {
                await disk.DiscardAsync(at * Stretch, count * Stretch);
                shadow.AsSpan(at, count).Clear();
            }

            if (random.Next(40) == 0) await CheckpointAsync(disk);
            if (random.Next(80) == 0)
            {
                await AbandonAsync(disk);
                disk = Open("web");
            }

            if (random.Next(20) == 0) await HoldsAsync(disk, shadow, random, Stretch);
        }

        await disk.Image.DisposeAsync();
        disk = Open("web");
        await using (disk.Image) await HoldsAsync(disk, shadow, random, Stretch);
    }

    [Test]
    public void Changes_are_what_they_would_be_one_block_at_a_time([Values(1, 2, 3, 4, 5, 6, 7, 8)] int seed)
    {
        const int Blocks = 3 << 16;
        Random random = new(seed);
        Overlay changes = new(), frozen = new();
        ulong?[] expected = new ulong?[Blocks], earlier = new ulong?[Blocks];
        long number = 0;
        for (int round = 0; round < 3000; round++)
        {
            int unit = 1 << (random.Next(3) * MapRoot.FanoutBits);
            int first = random.Next(Blocks / unit) * unit;
            int count = Math.Min(Blocks - first, unit * random.Next(1, random.Next(8) == 0 ? 258 : 4));
            if (random.Next(2) == 0)
            {
                changes.Set(first, new MapEntry(BlockAddress.Of(1, ++number), 0), number);
                expected[first] = (ulong)number;
            }
            else
            {
                changes.Clear(first, count, ++number);
                expected.AsSpan(first, count).Fill(0);
            }

            if (random.Next(100) > 0) continue;
            (frozen, changes, earlier, expected) = (changes, new Overlay(), expected, new ulong?[Blocks]);
            for (int i = 0; i < 20; i++)
            {
                int leaf = random.Next(Blocks / 256) * 256;
                int run = Math.Min(random.Next(1, 300), (Blocks - leaf) / 256);
                if (i % 2 == 0) changes.Clear(leaf, 256 * run, ++number);
                else changes.Set(leaf, new MapEntry(BlockAddress.Of(1, ++number), 0), number);
                if (i % 2 == 1) expected[leaf] = (ulong)number;
                else MarkCleared(changes, expected);
            }

            changes.AddEarlier(frozen);
            for (int i = 0; i < Blocks; i++) expected[i] ??= earlier[i];
            Compare(changes, expected);
        }

        Compare(changes, expected);
        HashSet<long> leaves = [.. changes.ChangedLeaves];
        for (int block = 0; block < Blocks; block++)
        {
            if (expected[block] is not null and not 0) Assert.That(leaves, Does.Contain(block / 256L));
        }
    }

    private static void MarkCleared(Overlay changes, ulong?[] expected)
    {
        for (int i = 0; i < expected.Length; i++)
        {
            if (changes.TryGet(i, out MapEntry entry) && entry.Address.IsNone) expected[i] = 0;
        }
    }

    private static void Compare(Overlay changes, ulong?[] expected)
    {
        for (int i = 0; i < expected.Length; i++)
        {
            ulong? found = changes.TryGet(i, out MapEntry entry) ? (ulong)entry.Address.Block : null;
            if (found != expected[i]) Assert.That(found, Is.EqualTo(expected[i]), $"block {i}");
        }
    }

    private static async Task HoldsAsync(ImageDriver disk, byte[] shadow, Random random, long stretch)
    {
        foreach (int at in Enumerable.Range(0, shadow.Length)
            .Where(at => shadow[at] != 0 || random.Next(100) == 0))
            Assert.That(await disk.ReadAsync(at * stretch, 4096), Is.All.EqualTo(shadow[at]), $"stretch {at}");
    }

    private static byte[] Filled(byte value)
    {
        byte[] bytes = new byte[MiB];
        bytes.AsSpan().Fill(value);
        return bytes;
    }
}
