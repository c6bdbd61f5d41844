using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Parallax.Admin;
using Ublkback.Parallax.Collect;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Parallax;

/// <summary>
/// The power fails at any moment: of what was written since the last flush any sectors may be there and any not. What
/// the guest flushed must be there, no block may be anything that it never was, and snapshots must be what they were.
/// </summary>
public sealed class VdiPowerLossTests : VdiFixture
{
    private const int DiskSize = 2 * MiB;
    private const int Together = 4;
    private const int Losses = 40;

    [Test]
    public async Task Any_loss_of_power_leaves_all_that_was_flushed_and_every_snapshot([Values(1, 2, 3, 4)] int seed)
    {
        VdiSuperblock superblock = new(Guid.NewGuid(), 1, Guid.NewGuid(), 0, "web");
        VdiVersion empty = new(
            MapRoot.EmptyFor(DiskSize / VdiFormat.BlockSize), DiskSize, 1,
            new LogPosition(VdiFormat.SegmentBlocks, 0, 1, 0), 1);
        RecordingFile file = new(VdiMetadata.Make(superblock, empty, ""));
        GuestHistory history = new(DiskSize, 0);
        List<(string Name, byte[] Content, int Position)> snapshots = [];
        Random random = new(seed);
        ImageDriver disk = OpenRecorded(file);
        await using (disk.Image)
        {
            Task others = Task.CompletedTask;
            for (int round = 0; round < 24; round++)
            {
                if (random.Next(3) == 0)
                {
                    await others;
                    others = random.Next(4) switch
                    {
                        0 => CheckpointAsync(disk),
                        1 => CollectAsync(disk, file),
                        _ => FlushAsync(disk, file, history),
                    };
                }

                if (round % 8 == 5)
                {
                    byte[] now = await disk.ReadAsync(0, DiskSize);
                    await SnapshotAsync(disk, $"s{round}");
                    snapshots.Add(($"s{round}", now, file.Position));
                }

                // Each in a part of the disk of its own.
                await Task.WhenAll(Enumerable.Range(0, Together)
                    .Select(part => ChangeAsync(disk, history, random, part, (byte)(1 + round))));
            }

            await others;
        }

        for (int i = 0; i < Losses; i++)
        {
            int at = random.Next(file.Position + 1);
            string when = $"power lost after {at} of {file.Position} changes";
            RecordingFile survived = new(file.AfterPowerLoss(at, random));
            ImageDriver again = OpenRecorded(survived);
            history.Check(await again.ReadAsync(0, DiskSize), at);
            foreach ((
                string name, byte[] content, int position) in snapshots.Where(snapshot => snapshot.Position <= at))
            {
                ImageDriver snapshot = OpenRecorded(survived, name);
                await using (snapshot.Image) await HoldsAsync(snapshot, content, $"{when}, {name}");
            }

            // And it goes on, until the power is lost again.
            for (byte value = 1; value <= 6; value++) await again.WriteAsync(4096, [.. Enumerable.Repeat(value, 4096)]);
            await again.FlushAsync();
            int flushed = survived.Position;
            byte[] now = await again.ReadAsync(0, DiskSize);
            for (byte value = 7; value <= 12; value++)
                await again.WriteAsync(4096, [.. Enumerable.Repeat(value, 4096)]);
            ImageDriver last = OpenRecorded(
                new RecordingFile(survived.AfterPowerLoss(flushed + random.Next(survived.Position - flushed), random)));
            byte[] left = await last.ReadAsync(0, DiskSize);
            Assert.That(left[4096], Is.InRange(6, 12), when);
            left.AsSpan(4096, 4096).CopyTo(now.AsSpan(4096));
            Assert.That(left.AsSpan().SequenceEqual(now), $"{when}, and again");
            await again.Image.DisposeAsync();
            await last.Image.DisposeAsync();
        }

        Assert.That(Warnings, Is.Empty);
    }

    private async Task CollectAsync(ImageDriver disk, RecordingFile file)
    {
        VdiImage image = (VdiImage)disk.Image;
        CollectionRun vdi = await OnAsync(() => CollectionRun.BeginAsync(image));
        BlockMarks marks = new();
        using VersionWalker walker = new(_ => (new RecordingContainer(file), image.Parts.Superblock), marks);
        foreach (VdiVersion version in vdi.Needed) walker.Walk([version]);
        vdi.Mark(marks);
        await OnAsync(() => vdi.FreeAsync(marks, () => true));
        vdi.End();
    }

    private static async Task FlushAsync(ImageDriver disk, RecordingFile file, GuestHistory history)
    {
        int writes = history.Count;
        await disk.FlushAsync();
        history.Flushed(file.Position, writes);
    }

    private static Task ChangeAsync(ImageDriver disk, GuestHistory history, Random random, int part, byte value)
    {
        const int Sectors = DiskSize / 512 / Together;
        int count = 1 + random.Next(random.Next(2) == 0 ? 8 : 64);
        int sector = (part * Sectors) + random.Next(Sectors - count);
        if (random.Next(5) > 0)
        {
            history.Wrote(sector, count, value);
            return disk.WriteAsync(sector * 512L, [.. Enumerable.Repeat(value, count * 512)]);
        }

        count = Math.Min(count * 4, ((part + 1) * Sectors) - sector);
        history.Discarded(sector, count);
        return disk.DiscardAsync(sector * 512L, count * 512L);
    }

    private ImageDriver OpenRecorded(RecordingFile file, string? snapshotName = null)
    {
        RecordingContainer container = new(file);
        VdiMetadata known = VdiMetadata.Read(container);
        (IReadOnlyList<VdiSnapshot> snapshots, _) = VdiSnapshots.ReadFile(known, container);
        VdiSnapshot? snapshot = snapshotName is null
            ? null
            : snapshots.Single(snapshot => snapshot.Name == snapshotName);
        VdiParts parts = new(
            container, known, snapshot?.Content ?? known.Head.Content, snapshot?.Id,
            _ => throw new NotSupportedException(), null, Warnings.Add);
        bool isReadOnly = snapshot is not null;
        return new ImageDriver(
            Worker, new VdiImage(parts, new ImageGeometry(DiskSize / 512, 512, 4096, isReadOnly, 4096)));
    }
}
