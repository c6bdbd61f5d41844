using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.HostTests.Fixtures;
using Ublkback.Rados.Pools;

namespace Ublkback.HostTests.Formats;

/// <summary>VDIs in a pool of Ceph from which objects are lost: an error, or no effect, and never other data.</summary>
public sealed class RadosDamageTests : VdiFixture
{
    private const int PieceSize = 32 << 10;
    private const int Size = 12 << 20;

    private string _pool = "";

    [SetUp]
    public async Task MakePool()
    {
        _pool = await OneNodeCeph.MakePoolAsync();
        StoreOption = $"rados:{_pool}?conf={OneNodeCeph.Configuration}";
    }

    // The second of three segments of the log, and the last.
    [TestCase("vdi.000001.00000002")]
    [TestCase("vdi.000001.00000004")]
    public async Task A_log_without_an_object_is_refused_and_the_object_is_not_made_anew(string name)
    {
        await WriteAsync();
        await VdiAsync("fsck");
        Remove(name);
        (int status, _, string errors) = await RunAsync("vdi", "fsck", "web", "--store", StoreOption);
        Assert.That((status, errors), Is.EqualTo((1, errors)));
        Assert.That(errors, Does.Contain("of the log is missing or damaged"));
        Assert.That(await RefusedAsync("snapshot", "web", "s"), Does.Contain("of the log is missing or damaged"));
        Assert.That(Exists(name), Is.False);
        (status, _, errors) = await RunAsync("vdi", "fsck", "web", "--repair", "--store", StoreOption);
        Assert.That((status, errors), Is.EqualTo((0, errors)));
        Assert.That(errors, Does.Contain("what was written last is given up"));
    }

    [TestCase("vdi.store")]
    [TestCase("vdi.store.copy")]
    [TestCase("vdi.000001.00000000")]
    [TestCase("vdi.000001.copy")]
    public async Task What_is_essential_is_made_again_from_its_copy(string name)
    {
        await WriteAsync();
        Remove(name);
        (int status, _, string errors) = await RunAsync("vdi", "fsck", "--quick", "--store", StoreOption);
        Assert.That((status, errors), Is.EqualTo((1, errors)), "the loss is reported");
        (status, _, errors) = await RunAsync("vdi", "fsck", "--repair", "--store", StoreOption);
        Assert.That((status, errors), Is.EqualTo((0, errors)));
        Assert.That(await VdiAsync("fsck"), Does.Contain("all is whole"));
        string copy = Path.Combine(Scratch, "web.img");
        await VdiAsync("export", "web", copy);
        Assert.That((await File.ReadAllBytesAsync(copy)).AsSpan(0, Size).ContainsAnyExcept((byte)'x'), Is.False);
        await VdiAsync("create", "other", "1M");
    }

    // Many segments, all answered; then the process dies.
    private async Task WriteAsync()
    {
        await VdiAsync("create", "web", "64M");
        (_, Blkfront disk) = await ConnectAsync(TargetOf("web"));
        await using (disk)
        {
            byte[] data = [.. Enumerable.Repeat((byte)'x', PieceSize)];
            for (int at = 0; at < Size; at += PieceSize)
                Assert.That(await disk.WriteAsync((ulong)at / 512, data), Is.EqualTo(BlkifStatus.Okay));
            await KillAsync();
        }
    }

    private void Remove(string name)
    {
        Assert.That(Exists(name), name);
        using RadosPool pool = Open();
        using RadosWrite write = new RadosWrite().Remove();
        pool.Change(new RadosName(name), write);
    }

    private bool Exists(string name)
    {
        using RadosPool pool = Open();
        return pool.Measure(new RadosName(name)) >= 0;
    }

    private RadosPool Open() => RadosPool.Open(new RadosAddress(_pool, OneNodeCeph.Configuration, null), false);
}
