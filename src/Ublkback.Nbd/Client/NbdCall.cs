using System.Buffers;
using System.Buffers.Binary;
using System.Threading.Tasks.Sources;
using Ublkback.Block;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Nbd.Client;

/// <summary>
/// A request that a server is asked, and its answer: null when the connection was lost before. Recycled; to be awaited
/// once. On one worker.
/// </summary>
[DataPath]
internal sealed class NbdCall(int slot) : INbdMessage, IValueTaskSource<BlockStatus?>
{
    private ManualResetValueTaskSourceCore<BlockStatus?> _core;
    private uint _turn;

    /// <summary>What names it on the wire: its slot, and how often that was used.</summary>
    public ulong Cookie => ((ulong)_turn << 32) | (uint)slot;

    /// <summary>Its slot.</summary>
    public int Slot => slot;

    /// <summary>Whether it waits for its answer.</summary>
    public bool IsUnderWay { get; private set; }

    /// <summary>What is asked.</summary>
    public NbdCommand Command { get; private set; }

    /// <summary>The first byte concerned.</summary>
    public long Offset { get; private set; }

    /// <summary>Bytes concerned.</summary>
    public int Length { get; private set; }

    /// <summary>Data to be written, or room for what is read.</summary>
    public Memory<byte> Data { get; private set; }

    /// <summary>Bytes that were read so far.</summary>
    public int Received { get; set; }

    /// <summary>What failed so far.</summary>
    public BlockStatus Status { get; set; }

    /// <summary>The answer.</summary>
    public ValueTask<BlockStatus?> Task => new(this, _core.Version);

    private ushort Flags { get; set; }

    /// <summary>Begins.</summary>
    public void Begin(NbdCommand command, ushort flags, long offset, int length, Memory<byte> data)
    {
        (Command, Flags, Offset, Length, Data) = (command, flags, offset, length, data);
        (Received, Status, IsUnderWay) = (0, BlockStatus.Okay, true);
        _turn++;
    }

    /// <summary>Ends.</summary>
    public void Complete(BlockStatus? status)
    {
        IsUnderWay = false;
        Data = default;
        _core.SetResult(status);
    }

    /// <summary>Writes the request, unless the connection was lost meanwhile.</summary>
    public void Write(IBufferWriter<byte> to)
    {
        if (!IsUnderWay) return;
        Span<byte> head = to.GetSpan(NbdProtocol.RequestSize);
        BinaryPrimitives.WriteUInt32BigEndian(head, NbdProtocol.RequestMagic);
        BinaryPrimitives.WriteUInt16BigEndian(head[4..], Flags);
        BinaryPrimitives.WriteUInt16BigEndian(head[6..], (ushort)Command);
        BinaryPrimitives.WriteUInt64BigEndian(head[8..], Cookie);
        BinaryPrimitives.WriteInt64BigEndian(head[16..], Offset);
        BinaryPrimitives.WriteInt32BigEndian(head[24..], Length);
        to.Advance(NbdProtocol.RequestSize);
        if (Command == NbdCommand.Write) to.Write(Data.Span);
    }

    /// <inheritdoc/>
    public void Drop()
    {
        // Whoever receives learns that the connection is lost, and ends all requests.
    }

    ValueTaskSourceStatus IValueTaskSource<BlockStatus?>.GetStatus(short token) => _core.GetStatus(token);

    void IValueTaskSource<BlockStatus?>.OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _core.OnCompleted(continuation, state, token, ValueTaskSourceOnCompletedFlags.None);

    BlockStatus? IValueTaskSource<BlockStatus?>.GetResult(short token)
    {
        BlockStatus? status = _core.GetResult(token);
        _core.Reset();
        return status;
    }
}
