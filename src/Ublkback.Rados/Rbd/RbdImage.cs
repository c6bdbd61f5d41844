using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Pools;

namespace Ublkback.Rados.Rbd;

/// <summary>An image of RBD, Ceph's own block device. Requests on one worker.</summary>
[DataPath]
internal sealed class RbdImage(RadosPool pool, string name, nint image, ImageGeometry geometry, Action<string> warn)
    : IBlockImage, IMeasuredImage
{
    private readonly Stack<RbdCall> _free = new();
    private readonly List<RbdCall> _all = [];
    private volatile ImageGeometry _geometry = geometry;

    public ImageGeometry Geometry => _geometry;

    public string Identity => name;

    public bool DiscardMakesZeros => true;

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        SeamAssert.HasValidShape(request, _geometry, name); // other clients can resize it
        if (!_free.TryPop(out RbdCall? call)) _all.Add(call = new RbdCall());
        int result = await call.RunAsync(image, request);
        _free.Push(call);
        if (result >= 0) return BlockStatus.Okay;
        warn($"{name}: {request.Operation} failed: {RadosException.Describe(-result)}");
        return LinuxError.ToStatus(-result);
    }

    public bool Remeasure()
    {
        if (LibRbd.GetSize(image, out ulong size) < 0 || size / BlockRequest.SectorSize == _geometry.SectorCount)
            return false;
        // off the path: the size has changed
        _geometry = _geometry with { SectorCount = size / BlockRequest.SectorSize };
        return true;
    }

    public async ValueTask DisposeAsync() // off the path: the end
    {
        await Task.Run(() => LibRbd.Close(image)).ConfigureAwait(false);
        foreach (RbdCall call in _all) call.Dispose();
        pool.Dispose();
    }
}
