using System.Numerics;
using System.Runtime.InteropServices;

namespace Ublkback.Block;

/// <summary>
/// Recycled requests, with memory of their own, for hooks that pass on something else than what they were given. It starts on
/// a page boundary and never moves, so it may be the target of direct I/O. On one loop. In the steady state it allocates
/// nothing; it keeps as much as was ever in use at once.
/// </summary>
public sealed class RequestPool
{
    private const int PageSize = 4096;

    private readonly Dictionary<int, Stack<PooledRequest>> _free = [];

    /// <summary>A request for the same operation and range, with as much memory, whose content is undefined.</summary>
    public BlockRequest Rent(BlockRequest like)
    {
        ArgumentNullException.ThrowIfNull(like);
        int size = (int)BitOperations.RoundUpToPowerOf2((uint)Math.Max(PageSize, like.Data.Length));
        PooledRequest request = StackOf(size).TryPop(out PooledRequest? free) ? free : new PooledRequest(Allocate(size));
        request.Operation = like.Operation;
        request.Sector = like.Sector;
        request.SectorCount = like.SectorCount;
        request.Data = request.Memory[..like.Data.Length];
        return request;
    }

    /// <summary>Gives a request back.</summary>
    public void Return(BlockRequest request)
    {
        PooledRequest pooled = (PooledRequest)request;
        StackOf(pooled.Memory.Length).Push(pooled);
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
