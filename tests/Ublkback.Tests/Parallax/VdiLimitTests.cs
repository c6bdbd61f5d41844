using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Parallax;

/// <summary>Sizes that a VDI cannot have are refused, whoever asks; an invalid head is never written.</summary>
public sealed class VdiLimitTests : VdiFixture
{
    private const int DiskSize = 2 * MiB;

    [Test]
    public async Task A_size_that_a_vdi_cannot_have_is_refused_while_it_is_in_use(
        [Values(VdiFormat.MaxSize + 512, -512, 0, 1000)] long size)
    {
        Create("web", DiskSize);
        ImageDriver disk = Open("web");
        await disk.WriteAsync(0, new byte[4096]);
        TargetException refusal =
            Assert.ThrowsAsync<TargetException>(() => OnAsync(() => ResizeAsync((VdiImage)disk.Image, size)))!;
        Assert.That(refusal.Message, Does.Contain($"a VDI cannot have {size} bytes"));
        refusal = Assert.ThrowsAsync<TargetException>(() => Vdis.ResizeAsync("web", size))!;
        Assert.That(refusal.Message, Does.Contain($"a VDI cannot have {size} bytes"));
        await disk.Image.DisposeAsync();
        Assert.That(Vdis.Describe("web").SizeBytes, Is.EqualTo(DiskSize));
        Assert.That(Vdis.Check(null, true, Warnings.Add).Damages, Is.Zero);
    }

    [Test]
    public void A_vdi_of_an_impossible_size_is_not_created([Values(VdiFormat.MaxSize + 512, -512, 0, 1000)] long size)
    {
        Assert.Throws<TargetException>(() => Create("web", size));
        Assert.That((Store.Names, Store.Numbers), Is.EqualTo((Array.Empty<string>(), Array.Empty<uint>())));
    }

    [Test]
    public void A_head_that_would_be_refused_when_it_is_read_is_not_written()
    {
        VdiVersion content = new(
            MapRoot.EmptyFor(1), 4096, 1, new LogPosition(VdiFormat.SegmentBlocks, 0, 1, 0), 1);
        VdiHead head = new(1, 0, content, 1, default, 0, "");
        byte[] block = new byte[VdiFormat.BlockSize];
        Guid vdi = Guid.NewGuid();
        head.Write(block, vdi);
        Assert.That(VdiHead.TryRead(block, vdi), Is.EqualTo(head));
        Assert.That(VdiHead.TryRead(block, Guid.NewGuid()), Is.Null, "the head of another VDI");
        foreach (VdiHead wrong in new[]
        {
            head with { Content = content with { Size = VdiFormat.MaxSize + 512 } },
            head with { Content = content with { Root = content.Root with { Depth = 0 } } },
            head with { SnapshotCount = VdiFormat.MaxSnapshots + 1 },
            head with { Content = content with { Vdi = 0 } },
        })
            Assert.Throws<InvalidDataException>(() => wrong.Write(block, vdi));
    }

    private static async Task<bool> ResizeAsync(VdiImage image, long size)
    {
        await image.ResizeAsync(size);
        return true;
    }
}
