using System.Buffers;
using System.Numerics;
using Ublkback.Linux.Kernel;

namespace Ublkback.Linux.Workers;

/// <summary>
/// The bounded memory that requests' data lives in: a buddy allocator over one range of pages. One thread only.
/// </summary>
/// <remarks>
/// Blocks are 2^order pages. The chains of free blocks go through arrays indexed by a block's first page; the lowest
/// order that fits is split, and a block that comes back is joined with its buddy as far as possible. Pages are
/// touched, and so cost memory, only when first used.
/// </remarks>
[DataPath]
public sealed unsafe class BufferPool : IDisposable
{
    private const int None = -1;
    private const byte InUse = 0x80;

    private readonly MemoryMapping _mapping;
    private readonly NativeMemory _memory;
    private readonly int _orders;
    private readonly int[] _heads; // by order: first free block, or None
    private readonly int[] _next; // by page
    private readonly int[] _previous; // by page
    private readonly byte[] _order; // by a block's first page: its order, with InUse while it is in no chain

    /// <summary>Makes a pool of a power of two of pages.</summary>
    public BufferPool(long length)
    {
        int pages = checked((int)(length / MemoryMapping.PageSize));
        ArgumentOutOfRangeException.ThrowIfNotEqual(BitOperations.IsPow2(pages), true, nameof(length));
        _orders = BitOperations.Log2((uint)pages) + 1;
        _heads = new int[_orders];
        Array.Fill(_heads, None);
        _next = new int[pages];
        _previous = new int[pages];
        _order = new byte[pages];
        _mapping = MemoryMapping.Anonymous(length);
        _memory = new NativeMemory(_mapping);
        Link(0, _orders - 1);
        FreeBytes = length;
    }

    /// <summary>Bytes not rented.</summary>
    public long FreeBytes { get; private set; }

    /// <summary>
    /// Rents <paramref name="length"/> bytes in one piece that starts on a page boundary and never moves. False when
    /// there is no such piece now.
    /// </summary>
    public bool TryRent(int length, out Memory<byte> buffer)
    {
        int pages = (length + MemoryMapping.PageSize - 1) / MemoryMapping.PageSize;
        int wanted = pages <= 1 ? 0 : BitOperations.Log2((uint)pages - 1) + 1;
        int order = wanted;
        while (order < _orders && _heads[order] == None) order++;
        if (order >= _orders)
        {
            buffer = default;
            return false;
        }

        int page = _heads[order];
        Unlink(page, order);
        while (order > wanted)
        {
            order--;
            Link(page + (1 << order), order);
        }

        _order[page] = (byte)(order | InUse);
        FreeBytes -= (long)MemoryMapping.PageSize << order;
        buffer = _memory.Memory.Slice(page * MemoryMapping.PageSize, length);
        return true;
    }

    /// <summary>Gives back what <see cref="TryRent"/> gave.</summary>
    public void Return(Memory<byte> buffer)
    {
        long offset = PinnedMemory.AddressOf(buffer) - _mapping.Address;
        int page = checked((int)(offset / MemoryMapping.PageSize));
        if ((_order[page] & InUse) == 0) throw new InvalidOperationException("a buffer was given back twice");
        int order = _order[page] & ~InUse;
        FreeBytes += (long)MemoryMapping.PageSize << order;
        while (order < _orders - 1)
        {
            int buddy = page ^ (1 << order);
            if (_order[buddy] != order) break;
            Unlink(buddy, order);
            page = Math.Min(page, buddy);
            order++;
        }

        Link(page, order);
    }

    /// <inheritdoc/>
    public void Dispose() => _mapping.Dispose();

    private void Link(int page, int order)
    {
        _order[page] = (byte)order;
        _previous[page] = None;
        _next[page] = _heads[order];
        if (_heads[order] != None) _previous[_heads[order]] = page;
        _heads[order] = page;
    }

    private void Unlink(int page, int order)
    {
        if (_previous[page] == None) _heads[order] = _next[page];
        else _next[_previous[page]] = _next[page];
        if (_next[page] != None) _previous[_next[page]] = _previous[page];
        _previous[page] = None;
        _order[page] = InUse;
    }

    private sealed class NativeMemory(MemoryMapping mapping) : MemoryManager<byte>
    {
        public override Span<byte> GetSpan() => new(mapping.Address, checked((int)mapping.Length));

        public override MemoryHandle Pin(int elementIndex = 0) => new(mapping.Address + elementIndex);

        public override void Unpin()
        {
        }

        protected override void Dispose(bool disposing)
        {
        }
    }
}
