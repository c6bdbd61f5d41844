using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Parallax.Admin;
using Ublkback.Tests.Images;
using TargetException = Ublkback.Block.TargetException;

namespace Ublkback.Tests.Parallax;

/// <summary>A VDI whose import has not ended is told from one whose import has.</summary>
public sealed class VdiUnfinishedTests : VdiFixture
{
    private const int DiskSize = 8 * MiB;

    [Test]
    public async Task An_unfinished_vdi_is_not_opened_until_its_import_has_ended([Values(false, true)] bool isKilled)
    {
        VdiOpener.Create(Store, "web", DiskSize, isUnfinished: true);
        RefusesToOpen();
        ImageDriver import = OpenToFill();
        byte[] data = new byte[MiB];
        new Random(1).NextBytes(data);
        await import.WriteAsync(0, data);
        await CheckpointAsync(import);
        if (isKilled) await AbandonAsync(import);
        else await import.Image.DisposeAsync();
        RefusesToOpen();
        Assert.That(await Vdis.CollectAsync().WaitAsync(Soon), Is.Not.Negative);
        Assert.That(Vdis.Check(null, true, Warnings.Add).Damages, Is.Zero);
        RefusesToOpen();

        import = OpenToFill();
        await import.WriteAsync(MiB, data);
        await OnAsync(async () =>
        {
            await ((IUnfinishedImage)import.Image).FinishAsync();
            return true;
        });
        if (isKilled) await AbandonAsync(import);
        else await import.Image.DisposeAsync();
        Assert.That(Vdis.Describe("web").IsUnfinished, Is.False);
        ImageDriver disk = Open("web");
        await using (disk.Image)
            Assert.That((await disk.ReadAsync(0, 2 * MiB)).AsSpan().SequenceEqual((byte[])[.. data, .. data]));
    }

    [Test]
    public async Task An_unfinished_vdi_can_be_deleted()
    {
        VdiOpener.Create(Store, "web", DiskSize, isUnfinished: true);
        await Vdis.DeleteAsync("web", withSnapshots: false);
        Create("web", DiskSize);
        Assert.That(Vdis.Describe("web").IsUnfinished, Is.False);
    }

    private void RefusesToOpen()
    {
        const string GoOn = "is unfinished: its import did not end: go on with 'ublkback vdi import TARGET web "
            + "--compare', or delete it with 'ublkback vdi delete web'";
        Assert.That(Vdis.Describe("web").IsUnfinished);
        foreach (Action use in new Action[]
        {
            () => OpenImage("web"),
            () => OpenImage("web", isReadOnly: true),
            () => Vdis.SnapshotAsync("web", "s").GetAwaiter().GetResult(),
            () => Vdis.ResizeAsync("web", 2 * DiskSize).GetAwaiter().GetResult(),
            () => Create("web", DiskSize),
        })
            Assert.That(() => use(), Throws.TypeOf<TargetException>().With.Message.Contains(GoOn));
    }

    private ImageDriver OpenToFill() => new(
        Worker,
        VdiOpener.Open(
            BlockTarget.Parse($"vdi:web?store=file:{Folder}"),
            new ImageOpening("the test", 77, false, true, null, Warnings.Add) { OpensUnfinished = true }));
}
