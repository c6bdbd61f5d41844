using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Format;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Containers;

/// <summary>
/// Reads and writes the segments of a VDI in a pool. A write that was answered is durable. On one worker.
/// </summary>
/// <param name="pool">The pool.</param>
/// <param name="segments">Which objects.</param>
/// <param name="owner">Whose writes are taken; null when it is only read.</param>
/// <param name="reading">That nobody writes it meanwhile; null when it does not matter.</param>
/// <param name="warn">Takes what people should know.</param>
[DataPath]
internal sealed class RadosBlocks(
    RadosPool pool, RadosSegments segments, WriterLock? owner, RadosLease? reading, Action<string> warn)
    : IBlockImage
{
    private readonly Stack<RadosCall> _free = new();
    private readonly List<RadosCall> _all = [];

    public ImageGeometry Geometry { get; } =
        new(long.MaxValue / BlockRequest.SectorSize, BlockRequest.SectorSize, VdiFormat.BlockSize, owner is null, 0);

    public string Identity => segments.First.Text;

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        if (owner is { IsShutOut: true } || reading is { IsLost: true }) return BlockStatus.IoError;
        // Nothing is kept back anywhere that a flush could bring to an end.
        if (request.Operation == BlockOperation.Flush) return BlockStatus.Okay;
        long offset = (long)request.Sector * BlockRequest.SectorSize;
        for (Memory<byte> rest = request.Data; rest.Length > 0;)
        {
            long segment = offset / VdiFormat.SegmentSize;
            int at = (int)(offset % VdiFormat.SegmentSize);
            Memory<byte> piece = rest[..Math.Min(rest.Length, VdiFormat.SegmentSize - at)];
            int result = await RunAsync(request.Operation, segments.Of(segment), at, piece);
            if (result < 0) return Fail(request.Operation, segment, -result);
            rest = rest[piece.Length..];
            offset += piece.Length;
        }

        return BlockStatus.Okay;
    }

    public ValueTask DisposeAsync()
    {
        foreach (RadosCall call in _all) call.Dispose();
        return default;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<int> RunAsync(BlockOperation operation, RadosName name, int offset, Memory<byte> piece)
    {
        if (!_free.TryPop(out RadosCall? call)) _all.Add(call = new RadosCall());
        int result = operation == BlockOperation.Read
            ? await call.ReadAsync(pool, name, offset, piece)
            : await WriteAsync(call, name, offset, piece);
        _free.Push(call);
        if (operation != BlockOperation.Read) return result;
        if (result == -LinuxError.NoEntry) result = 0;
        if (result >= 0) piece.Span[result..].Clear(); // behind the end of the object
        return result;
    }

    private ValueTask<int> WriteAsync(RadosCall call, RadosName name, int offset, Memory<byte> piece)
    {
        using RadosWrite write = new RadosWrite().IfAttribute(WriterLock.EpochAttribute, owner!.Epoch)
            .Write(offset, piece.Span);
        return call.ChangeAsync(pool, name, write);
    }

    private BlockStatus Fail(BlockOperation operation, long segment, int errno)
    {
        if (errno == LinuxError.ShutOut) pool.Cluster.Forget();
        if (owner is not null && errno is (LinuxError.ShutOut or LinuxError.Cancelled)) owner.SayShutOut(errno);
        else
            warn($"object {segments.Of(segment)} of pool {pool.Name}: {operation} failed: "
                + RadosException.Describe(errno));
        return LinuxError.ToStatus(errno);
    }
}
