using NUnit.Framework;

namespace Ublkback.Tests.Images.Qcow2;

/// <summary>
/// The power fails at any moment: of what was written since the last flush any sectors may be there and any not. QEMU
/// must find the image in order, or counting too much; and what the guest flushed must be there.
/// </summary>
public sealed class PowerLossTests : Qcow2Fixture
{
    private const int DiskSize = 2 * MiB;
    private const int Together = 4;

    [Test]
    public async Task Any_loss_of_power_leaves_an_image_in_order_with_all_that_was_flushed(
        [Values(4096, 65536)] int clusterSize, [Values(false, true)] bool hasBacking, [Values(1, 2, 3)] int seed)
    {
        File.WriteAllBytes(PathOf("below.raw"), [.. Enumerable.Repeat((byte)0xBB, DiskSize)]);
        string path = MakeByQemu(
            "a.qcow2", DiskSize,
            ["-o", $"cluster_size={clusterSize}",
                .. hasBacking ? ["-b", PathOf("below.raw"), "-F", "raw"] : Array.Empty<string>()]);
        RecordingFile container = new(File.ReadAllBytes(path));
        ImageDriver disk = new(
            Worker,
            OpenRecorded(container, path, hasBacking ? Open(PathOf("below.raw"), isReadOnly: true).Image : null));
        GuestHistory history = new(DiskSize, hasBacking ? (byte)0xBB : (byte)0);
        Random random = new(seed);
        await using (disk.Image)
        {
            Task flush = Task.CompletedTask;
            for (int round = 0; round < 20; round++)
            {
                if (random.Next(3) == 0)
                {
                    // It goes on while others write.
                    await flush;
                    flush = FlushAsync(disk, container, history);
                }

                // Each in a part of the disk of its own.
                await Task.WhenAll(Enumerable.Range(0, Together)
                    .Select(part => ChangeAsync(disk, history, random, part, (byte)(1 + round))));
            }

            await flush;
        }

        for (int i = 0; i < 40; i++)
        {
            int at = random.Next(container.Position + 1);
            byte[] survived = container.AfterPowerLoss(at, random);
            string lost = PathOf("lost.qcow2");
            await File.WriteAllBytesAsync(lost, survived);
            (int status, string output) = TryRun("qemu-img", "check", lost);
            Assert.That(
                status, Is.Zero.Or.EqualTo(3), $"power lost after {at} of {container.Position} writes: {output}");
            ImageDriver again = Open($"qcow2:{lost}?backing=allow");
            await using (again.Image) history.Check(await again.ReadAsync(0, DiskSize), at);
            (status, output) = TryRun("qemu-img", "check", lost);
            Assert.That(
                status, Is.Zero.Or.EqualTo(3), $"used again after {at} of {container.Position} writes: {output}");
        }
    }

    private static async Task FlushAsync(ImageDriver disk, RecordingFile container, GuestHistory history)
    {
        int writes = history.Count;
        await disk.FlushAsync();
        history.Flushed(container.Position, writes);
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
}
