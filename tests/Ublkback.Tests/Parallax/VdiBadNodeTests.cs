using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Parallax;

/// <summary>A node of a map that cannot be read: writes go on, and nothing that can still be read is lost.</summary>
public sealed class VdiBadNodeTests : VdiFixture
{
    private const int DiskSize = 8 * MiB;
    private const int LeafSize = MapRoot.Fanout * VdiFormat.BlockSize;

    private readonly List<string> _said = [];

    [Test]
    public async Task A_damaged_leaf_fails_reads_of_its_blocks_and_no_writes([Values] bool isRepairedAfterwards)
    {
        byte[] shadow = await MakeAsync();
        BlockAddress leaf = LeafOf(3);
        Damage(leaf.Block);
        ImageDriver disk = Open("web");
        byte[] block = [.. Enumerable.Repeat((byte)7, 4096)];
        foreach (int at in new[] { 3 * LeafSize, 0 })
        {
            await disk.WriteAsync(at, block);
            block.CopyTo(shadow, at);
            await CheckpointAsync(disk);
        }

        Assert.That(Warnings, Has.Some.Contain($"from byte {3 * LeafSize} on are I/O errors where they are not"));
        Assert.That(await disk.TryReadAsync((3 * LeafSize) + 4096, new byte[4096]), Is.EqualTo(BlockStatus.IoError));
        await HoldsAsync(disk, shadow[..((3 * LeafSize) + 4096)], "what is before");
        await disk.Image.DisposeAsync();
        Assert.That(CheckDamages(), Is.EqualTo(1), "the older node, which is needed");
        if (isRepairedAfterwards)
        {
            await Vdis.RepairAsync("web", _said.Add).WaitAsync(Soon);
            Assert.That(
                _said, Has.Count.EqualTo(1)
                    .And.Some.Contain($"255 blocks of 4 KiB from byte {(3 * LeafSize) + 4096} on are given up"));
        }
        else
        {
            Damage(leaf.Block); // the storage can read it again
            Assert.That(CheckDamages(), Is.Zero);
        }

        disk = Open("web");
        if (!isRepairedAfterwards) await HoldsAsync(disk, shadow, "nothing was lost");
        await disk.WriteAsync(3 * LeafSize, shadow[(3 * LeafSize)..(4 * LeafSize)]);
        await HoldsAsync(disk, shadow, "all was written again");
        await disk.Image.DisposeAsync();
    }

    private long CheckDamages() => Vdis.Check(null, true, Warnings.Add).Damages;

    private async Task<byte[]> MakeAsync()
    {
        Create("web", DiskSize);
        byte[] shadow = new byte[DiskSize];
        new Random(8).NextBytes(shadow);
        ImageDriver disk = Open("web");
        await disk.WriteAsync(0, shadow);
        await disk.Image.DisposeAsync();
        return shadow;
    }

    private BlockAddress LeafOf(int leaf)
    {
        (IVdiContainer container, _) = Store.OpenOther(1, Warnings.Add);
        byte[] root = new byte[VdiFormat.BlockSize];
        container.Read(VdiMetadata.Read(container).Head.Content.Root.Node.Address.Block, root);
        container.DisposeAsync().AsTask().GetAwaiter().GetResult();
        return MapEntry.Read(root, leaf).Address;
    }

    private void Damage(long block)
    {
        using FileStream file = new(Store.PathOf(1), FileMode.Open);
        file.Position = VdiFormat.OffsetOf(block) + 100;
        int was = file.ReadByte();
        file.Position--;
        file.WriteByte((byte)~was);
    }
}
