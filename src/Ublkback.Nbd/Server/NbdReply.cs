using System.Buffers;
using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Nbd.Server;

/// <summary>A client's request, and its answer. Recycled. On the session's worker.</summary>
[DataPath]
internal sealed class NbdReply : INbdMessage
{
    private const int MaxPiece = 1 << 20; // bytes that an image is asked for at once
    private const int MaxExtents = 64;
    private const int ExtentSize = 2 * sizeof(uint);
    private const uint Hole = 1; // NBD_STATE_HOLE
    private const uint Zero = 2; // NBD_STATE_ZERO

    private static readonly Memory<byte> Zeros = PinnedMemory.AllocatePages(MaxPiece); // never written

    private readonly NbdSession _session;
    private readonly IBlockImage _image;
    private readonly Action _continue;
    private readonly BlockRequest _piece = new();
    private readonly Memory<byte> _extents = new byte[MaxExtents * ExtentSize];
    private ValueTaskAwaiter<NbdError> _awaiter;
    private int _extentCount;
    private bool _isExecuting;
    private NbdError _error;

    public NbdReply(NbdSession session, IBlockImage image)
    {
        _session = session;
        _image = image;
        _continue = Continue;
    }

    /// <summary>What names the request.</summary>
    public ulong Cookie { get; set; }

    /// <summary>What is asked.</summary>
    public NbdCommand Command { get; set; }

    /// <summary>How.</summary>
    public ushort Flags { get; set; }

    /// <summary>The first byte concerned.</summary>
    public long Offset { get; set; }

    /// <summary>Bytes concerned.</summary>
    public uint Length { get; set; }

    /// <summary>Memory for data; null when there is none.</summary>
    public BlockRequest? Buffer { get; set; }

    /// <summary>Bytes of memory that it holds.</summary>
    public int HeldBytes => Buffer?.Data.Length ?? 0;

    /// <summary>Does what is asked, then tells the session.</summary>
    public void Start()
    {
        SeamAssert.IsOnce(!_isExecuting, "the NBD server");
        _isExecuting = true;
#pragma warning disable CA2012 // awaited once, by hand: an async method that nobody awaits would not be recycled
        _awaiter = ExecuteAsync().GetAwaiter();
#pragma warning restore CA2012
        if (_awaiter.IsCompleted) Continue();
        else _awaiter.UnsafeOnCompleted(_continue);
    }

    /// <summary>Answers without having done anything.</summary>
    public void Refuse(NbdError error) => _error = error;

    /// <summary>Writes the answer, and is recycled.</summary>
    public void Write(IBufferWriter<byte> to)
    {
        bool isRead = Command == NbdCommand.Read && _error == NbdError.None;
        if (_session.IsStructured && Command is NbdCommand.Read or NbdCommand.BlockStatus) WriteChunk(to);
        else WriteSimple(to);
        if (isRead) to.Write(Buffer!.Data.Span[..(int)Length]);
        _session.Recycle(this);
    }

    /// <summary>Is recycled without an answer.</summary>
    public void Drop() => _session.Recycle(this);

    private void Continue()
    {
        SeamAssert.IsOnce(_isExecuting, "the NBD server");
        _isExecuting = false;
        _error = _awaiter.GetResult(); // completed: the awaiter called
        _session.Finish(this);
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<NbdError> ExecuteAsync()
    {
        BlockStatus status = Command switch
        {
            NbdCommand.Read => await TransferAsync(BlockOperation.Read, Buffer!.Data),
            NbdCommand.Write => await TransferAsync(BlockOperation.Write, Buffer!.Data),
            NbdCommand.Trim => await RunAsync(BlockOperation.Discard, Offset, Length, default),
            NbdCommand.WriteZeroes => await WriteZerosAsync(),
            NbdCommand.Flush => await RunAsync(BlockOperation.Flush, 0, 0, default),
            NbdCommand.BlockStatus => await MapAsync((IAllocationMap)_image),
            _ => BlockStatus.Unsupported,
        };
        bool isDurable = (Flags & NbdProtocol.ForceUnitAccess) != 0
            && Command is NbdCommand.Write or NbdCommand.WriteZeroes or NbdCommand.Trim;
        if (status == BlockStatus.Okay && isDurable) status = await RunAsync(BlockOperation.Flush, 0, 0, default);
        return status switch
        {
            BlockStatus.Okay => NbdError.None,
            BlockStatus.NoSpace => NbdError.NoSpace,
            BlockStatus.Unsupported => NbdError.NotSupported,
            _ => NbdError.Io,
        };
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> TransferAsync(BlockOperation operation, Memory<byte> data)
    {
        BlockStatus status = BlockStatus.Okay;
        for (int at = 0; at < Length && status == BlockStatus.Okay; at += MaxPiece)
        {
            Memory<byte> piece = data.Slice(at, (int)Math.Min(MaxPiece, Length - at));
            status = await RunAsync(operation, Offset + at, piece.Length, piece);
        }

        return status;
    }

    // What may become a hole and can, does, in whole units of a discard; what is left is written.
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> WriteZerosAsync()
    {
        int unit = _image.Geometry.DiscardGranularity;
        long end = Offset + Length, holeStart = Offset, holeEnd = Offset;
        if (unit > 0 && _image.DiscardMakesZeros && (Flags & NbdProtocol.NoHole) == 0)
        {
            holeStart = Math.Min((Offset + unit - 1) / unit * unit, end);
            holeEnd = Math.Max(end / unit * unit, holeStart);
        }

        BlockStatus status = await FillAsync(Offset, holeStart);
        if (status == BlockStatus.Okay && holeEnd > holeStart)
            status = await RunAsync(BlockOperation.Discard, holeStart, holeEnd - holeStart, default);
        return status == BlockStatus.Okay ? await FillAsync(holeEnd, end) : status;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> FillAsync(long offset, long end)
    {
        BlockStatus status = BlockStatus.Okay;
        for (; offset < end && status == BlockStatus.Okay; offset += MaxPiece)
        {
            int length = (int)Math.Min(MaxPiece, end - offset);
            status = await RunAsync(BlockOperation.Write, offset, length, Zeros[..length]);
        }

        return status;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> MapAsync(IAllocationMap image)
    {
        int most = (Flags & NbdProtocol.RequestOne) != 0 ? 1 : MaxExtents;
        ulong sector = (ulong)Offset / BlockRequest.SectorSize;
        long left = Length / BlockRequest.SectorSize;
        for (_extentCount = 0; left > 0 && _extentCount < most; _extentCount++)
        {
            SectorRange range = await image.MapAsync(sector, left);
            if (range.Status != BlockStatus.Okay) return range.Status;
            Span<byte> extent = _extents.Span.Slice(_extentCount * ExtentSize, ExtentSize);
            BinaryPrimitives.WriteUInt32BigEndian(extent, (uint)(range.SectorCount * BlockRequest.SectorSize));
            BinaryPrimitives.WriteUInt32BigEndian(
                extent[sizeof(uint)..], !range.IsPresent ? Hole | Zero : range.IsZero ? Zero : 0);
            sector += (ulong)range.SectorCount;
            left -= range.SectorCount;
        }

        return BlockStatus.Okay;
    }

    private ValueTask<BlockStatus> RunAsync(BlockOperation operation, long offset, long length, Memory<byte> data)
    {
        _piece.Operation = operation;
        _piece.Sector = (ulong)offset / BlockRequest.SectorSize;
        _piece.SectorCount = length / BlockRequest.SectorSize;
        _piece.Data = data;
        SeamAssert.IsValid(_piece, _image.Geometry, "the NBD server");
        return _image.HandleAsync(_piece);
    }

    private void WriteSimple(IBufferWriter<byte> to)
    {
        Span<byte> head = to.GetSpan(NbdProtocol.SimpleReplySize);
        BinaryPrimitives.WriteUInt32BigEndian(head, NbdProtocol.SimpleReplyMagic);
        BinaryPrimitives.WriteUInt32BigEndian(head[4..], (uint)_error);
        BinaryPrimitives.WriteUInt64BigEndian(head[8..], Cookie);
        to.Advance(NbdProtocol.SimpleReplySize);
    }

    private void WriteChunk(IBufferWriter<byte> to)
    {
        bool isStatus = Command == NbdCommand.BlockStatus;
        uint length = _error != NbdError.None ? sizeof(uint) + sizeof(ushort)
            : isStatus ? (uint)(sizeof(uint) + (_extentCount * ExtentSize)) : sizeof(ulong) + Length;
        Span<byte> head = to.GetSpan(NbdProtocol.ChunkHeadSize + sizeof(ulong));
        BinaryPrimitives.WriteUInt32BigEndian(head, NbdProtocol.ChunkMagic);
        BinaryPrimitives.WriteUInt16BigEndian(head[4..], NbdProtocol.Done);
        BinaryPrimitives.WriteUInt16BigEndian(
            head[6..],
            _error != NbdError.None
                ? NbdProtocol.ChunkError
                : isStatus ? NbdProtocol.ChunkBlockStatus : NbdProtocol.ChunkData);
        BinaryPrimitives.WriteUInt64BigEndian(head[8..], Cookie);
        BinaryPrimitives.WriteUInt32BigEndian(head[16..], length);
        Span<byte> body = head[NbdProtocol.ChunkHeadSize..];
        if (_error != NbdError.None)
        {
            BinaryPrimitives.WriteUInt32BigEndian(body, (uint)_error);
            BinaryPrimitives.WriteUInt16BigEndian(body[sizeof(uint)..], 0); // no text
            to.Advance(NbdProtocol.ChunkHeadSize + sizeof(uint) + sizeof(ushort));
        }
        else if (isStatus)
        {
            BinaryPrimitives.WriteUInt32BigEndian(body, NbdServerHandshake.AllocationId);
            to.Advance(NbdProtocol.ChunkHeadSize + sizeof(uint));
            to.Write(_extents.Span[..(_extentCount * ExtentSize)]);
        }
        else
        {
            BinaryPrimitives.WriteInt64BigEndian(body, Offset);
            to.Advance(NbdProtocol.ChunkHeadSize + sizeof(ulong));
        }
    }
}
