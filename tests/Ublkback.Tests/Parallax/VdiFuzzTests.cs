using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Parallax;

/// <summary>Files in which bytes have changed: what is read is what was written, or an error.</summary>
public sealed class VdiFuzzTests : VdiFixture
{
    private const int DiskSize = 2 * MiB;
    private const int Tries = 40;

    [Test]
    public async Task Damage_is_an_error_and_never_other_data(
        [Values(false, true)] bool isClosed, [Values(1, 2)] int seed)
    {
        Create("web", DiskSize);
        ImageDriver disk = Open("web");
        byte[] shadow = new byte[DiskSize];
        Random random = new(seed);
        await disk.WorkAsync(shadow, random, 60);
        await CheckpointAsync(disk);
        await disk.WorkAsync(shadow, random, 60);
        await SnapshotAsync(disk, "s");
        byte[] kept = [.. shadow];
        await disk.WorkAsync(shadow, random, 60);
        await disk.FlushAsync();
        // So that there is a batch which says that all before is durable.
        await disk.WriteAsync(0, shadow[..4096]);
        if (isClosed) await disk.Image.DisposeAsync();
        else await AbandonAsync(disk);
        string path = Store.PathOf(Store.Find("web"));
        byte[] whole = await File.ReadAllBytesAsync(path);
        int[] used = [.. Enumerable.Range(0, whole.Length / 4096)
            .Where(block => whole.AsSpan(block * 4096, 4096).ContainsAnyExcept((byte)0))];
        int noticed = 0;
        for (int i = 0; i < Tries; i++)
        {
            byte[] damaged = [.. whole];
            // Heads, superblock and headers are few, and get their share.
            int block = random.Next(3) == 0 ? random.Next(3) : used[random.Next(used.Length)];
            for (int flips = random.Next(4); flips >= 0; flips--)
                damaged[(block * 4096) + random.Next(4096)] ^= (byte)(1 << random.Next(8));
            await File.WriteAllBytesAsync(path, damaged);
            Warnings.Clear();
            noticed += await HoldsOrFailsAsync("web", shadow, block) + await HoldsOrFailsAsync("web@s", kept, block);
        }

        // Where the blocks are depends on when checkpoints were made; many damages hit what is not needed.
        Assert.That(noticed, Is.GreaterThan(Tries / 8));
    }

    // 1 if it fails somewhere.
    private async Task<int> HoldsOrFailsAsync(string name, byte[] expected, int damaged)
    {
        ImageDriver disk;
        try
        {
            disk = Open(name, isReadOnly: true);
        }
        catch (TargetException refusal)
        {
            Assert.That(refusal.Message, Does.Not.Contain("\n").And.Length.GreaterThan(20));
            return 1;
        }

        await using (disk.Image)
        {
            int failed = 0;
            byte[] block = new byte[4096];
            for (int at = 0; at < DiskSize; at += block.Length)
            {
                if (await disk.TryReadAsync(at, block) != BlockStatus.Okay) failed = 1;
                else if (!block.AsSpan().SequenceEqual(expected.AsSpan(at, block.Length)))
                    Assert.Fail($"{name}: byte {at} is other data, with block {damaged} damaged");
            }

            Assert.That(failed == 0 || Warnings.Count > 0, "what is damaged is said");
            return failed;
        }
    }
}
