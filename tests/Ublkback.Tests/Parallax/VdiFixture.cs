using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Linux.Workers;
using Ublkback.Parallax.Admin;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Stores;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Parallax;

/// <summary>A store of VDIs in a folder, and a worker.</summary>
public abstract class VdiFixture
{
    private protected const int MiB = 1 << 20;

    private protected static readonly TimeSpan Soon = TimeSpan.FromSeconds(30);

    private int _lastDisk;

    private protected string Folder { get; private set; } = null!;

    private protected Worker Worker { get; private set; } = null!;

    private protected List<string> Warnings { get; } = [];

    private protected FileStore Store => FileStore.Open(Folder, makes: true);

    /// <summary>The store as commands use it.</summary>
    private protected VdiAdmin Vdis => VdiAdmin.Open(
        $"file:{Folder}", false, Worker,
        isReadOnly => new ImageOpening("the test", 1 << 20, isReadOnly, true, null, Warnings.Add));

    [SetUp]
    public void Begin()
    {
        Folder = Directory.CreateTempSubdirectory("ublkback-test-").FullName;
        Worker = new Worker("test");
        Warnings.Clear();
    }

    [TearDown]
    public void End()
    {
        foreach (string warning in Warnings) TestContext.Out.WriteLine(warning);
        Worker.Dispose();
        Directory.Delete(Folder, recursive: true);
    }

    private protected void Create(string name, long size) => VdiOpener.Create(Store, name, size);

    private protected ImageDriver Open(string target, bool isReadOnly = false) =>
        new(Worker, OpenImage(target, isReadOnly));

    private protected IBlockImage OpenImage(string target, bool isReadOnly = false) => VdiOpener.Open(
        BlockTarget.Parse($"vdi:{target}?store=file:{Folder}"),
        new ImageOpening("the test", ++_lastDisk, isReadOnly, true, null, Warnings.Add));

    private protected Task<T> OnAsync<T>(Func<Task<T>> action) => Worker.InvokeAsync(action).WaitAsync(Soon);

    private protected async Task SnapshotAsync(ImageDriver disk, string name) =>
        Assert.That(await OnAsync(() => Parts(disk).Control.SnapshotAsync(name)), Is.EqualTo(BlockStatus.Okay));

    private protected async Task CheckpointAsync(ImageDriver disk) =>
        Assert.That(await OnAsync(() => Parts(disk).Checkpointer.RunAsync()), Is.EqualTo(BlockStatus.Okay));

    /// <summary>A disk holds some bytes.</summary>
    private protected static async Task HoldsAsync(ImageDriver disk, byte[] expected, string when)
    {
        int equal = (await disk.ReadAsync(0, expected.Length)).AsSpan().CommonPrefixLength(expected);
        Assert.That(equal, Is.EqualTo(expected.Length), $"{when}: the first byte that differs");
    }

    private protected static VdiParts Parts(ImageDriver disk) => ((VdiImage)disk.Image).Parts;

    /// <summary>Leaves the VDI as the death of its process does.</summary>
    private protected static async Task AbandonAsync(ImageDriver disk)
    {
        Parts(disk).Door?.Dispose();
        await Parts(disk).DisposeAsync();
    }
}
