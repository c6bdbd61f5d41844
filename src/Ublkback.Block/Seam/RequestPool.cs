using System.Numerics;
using System.Runtime.InteropServices;

namespace Ublkback.Block;

/// <summary>
/// Recycled requests, with memory of their own, for hooks that pass on something else than what they were given. It
/// starts on a page boundary and never moves, so it may be the target of direct I/O. On one loop. In the steady state
/// it allocates nothing; it keeps as much as was ever in use at once.
/// </summary>
public sealed class RequestPool
{
    private const int PageSize = 4096;

    private readonly Dictionary<int, Stack<PooledRequest>> _free = [];

    /// <summary>A request for the same operation and range, with as much memory, whose content is undefined.</summary>
    public BlockRequest Rent(BlockRequest like)
    {
        ArgumentNullException.ThrowIfNull(like);
        return Rent(like.Operation, like.Sector, like.SectorCount, like.Data.Length);
    }

    /// <summary>
    /// A request for an operation on a range, with as much memory as it needs, whose content is undefined.
    /// </summary>
    public BlockRequest Rent(BlockOperation operation, ulong sector, long sectorCount)
    {
        bool hasData = operation is BlockOperation.Read or BlockOperation.Write;
        return Rent(operation, sector, sectorCount, hasData ? (int)(sectorCount * BlockRequest.SectorSize) : 0);
    }

    /// <summary>Gives a request back.</summary>
    public void Return(BlockRequest request)
    {
        PooledRequest pooled = (PooledRequest)request;
        StackOf(pooled.Memory.Length).Push(pooled);
    }

    private PooledRequest Rent(BlockOperation operation, ulong sector, long sectorCount, int length)
    {
        int size = (int)BitOperations.RoundUpToPowerOf2((uint)Math.Max(PageSize, length));
        PooledRequest request = StackOf(size).TryPop(out PooledRequest? free)
            ? free
            : new PooledRequest(Allocate(size));
        request.Operation = operation;
        request.Sector = sector;
        request.SectorCount = sectorCount;
        request.Data = request.Memory[..length];
        return request;
    }

    private Stack<PooledRequest> StackOf(int size)
    {
        if (_free.TryGetValue(size, out Stack<PooledRequest>? stack)) return stack;
        return _free[size] = new Stack<PooledRequest>();
    }

    private static Memory<byte> Allocate(int size)
    {
        byte[] array = GC.AllocateUninitializedArray<byte>(size + PageSize, pinned: true);
        long address = Marshal.UnsafeAddrOfPinnedArrayElement(array, 0);
        return array.AsMemory((int)(-address & (PageSize - 1)), size);
    }

    private sealed class PooledRequest(Memory<byte> memory) : BlockRequest
    {
        public Memory<byte> Memory => memory;
    }
}
