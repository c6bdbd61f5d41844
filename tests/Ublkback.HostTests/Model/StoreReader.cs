using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;
using Ublkback.Parallax.Admin;

namespace Ublkback.HostTests.Model;

/// <summary>Reads VDIs and snapshots in the process of the test, which is none that is killed.</summary>
/// <param name="store">The store, as commands are told.</param>
internal sealed class StoreReader(string store) : IDisposable
{
    private readonly Worker _worker = new("reader");
    private long _lastDisk = 1 << 20;

    /// <summary>Returns the names of all VDIs, with those of their snapshots.</summary>
    public Dictionary<string, string[]> List()
    {
        using VdiAdmin vdis = VdiAdmin.Open(store, false, _worker, Opening);
        return vdis.Names.ToDictionary(
            name => name,
            name => vdis.Describe(name).Snapshots.Select(snapshot => snapshot.Name).ToArray());
    }

    /// <summary>Returns what a check of all finds wrong.</summary>
    public List<string> Check()
    {
        using VdiAdmin vdis = VdiAdmin.Open(store, false, _worker, Opening);
        List<string> damages = [];
        vdis.Check(null, true, damages.Add);
        return damages;
    }

    /// <summary>Reads all of a VDI that nobody writes, or of a snapshot.</summary>
    public async Task<long[]> ReadAsync(string name)
    {
        BlockTarget target = BlockTarget.Parse($"vdi:{name}?store={store.Replace('?', '&')}");
        IBlockImage image = VdiOpener.Open(target, Opening(true));
        await using (image)
        {
            Memory<byte> data = PinnedMemory.AllocatePages((int)image.Geometry.SectorCount * SectorPattern.Size);
            BlockStatus status = await _worker.InvokeAsync(
                () => new ImageAccess(image).RunAsync(BlockOperation.Read, 0, data.Length, data).AsTask());
            return status == BlockStatus.Okay
                ? SectorPattern.Read(data.Span)
                : throw new ModelException($"{name} cannot be read");
        }
    }

    public void Dispose() => _worker.Dispose();

    private ImageOpening Opening(bool isReadOnly) =>
        new("the test", Interlocked.Increment(ref _lastDisk), isReadOnly, true, null, _ => { });
}
