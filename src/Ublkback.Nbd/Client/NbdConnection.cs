using System.Buffers.Binary;
using System.Diagnostics;
using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Nbd.Client;

/// <summary>
/// A negotiated connection to a server: any number of requests, answered in any order. On the worker that first uses
/// it. What the server sends is hostile input: what makes no sense ends the connection.
/// </summary>
/// <param name="channel">The bytes of it.</param>
/// <param name="export">What the server said of the disk.</param>
/// <param name="begunAt">When connecting began; a time of the stopwatch.</param>
/// <param name="warn">Takes sentences about errors.</param>
[DataPath]
internal sealed class NbdConnection(NbdChannel channel, NbdExport export, long begunAt, Action<string> warn)
{
    private const uint MaxErrorText = 64 << 10;

    private readonly NbdOutbox _outbox = new(channel);
    private readonly List<NbdCall> _calls = [];
    private readonly Stack<NbdCall> _free = new();
    private readonly Memory<byte> _head = new byte[NbdProtocol.ChunkHeadSize];
    private bool _isLost;

    /// <summary>What the server said of the disk.</summary>
    public NbdExport Export => export;

    /// <summary>When connecting began; a time of the stopwatch.</summary>
    public long BegunAt => begunAt;

    /// <summary>Requests that wait for an answer.</summary>
    public int UnderWay { get; private set; }

    /// <summary>
    /// When the server last answered, or was first asked after it had answered all; a time of the stopwatch.
    /// </summary>
    public long LastAnswer { get; private set; }

    /// <summary>Whether it takes no more requests, and is closed when those under way are answered.</summary>
    public bool IsEnding { get; private set; }

    /// <summary>Whether the server has said that it ends, all its connections with it.</summary>
    public bool IsServerEnding { get; private set; }

    /// <summary>Serves requests until the connection is lost, and says why; closes it. To be called once.</summary>
    public async Task<string> RunAsync() // off the path: once for each connection
    {
        Task sending = _outbox.RunAsync();
        string cause;
        try
        {
            while (true) await ReceiveAsync();
        }
        catch (IOException failure)
        {
            cause = failure.Message;
        }

        _isLost = true;
        channel.Abort();
        _outbox.End();
        await sending;
        await channel.DisposeAsync();
        return cause;
    }

    /// <summary>Ends the requests that the lost connection leaves without an answer.</summary>
    public void GiveUp()
    {
        foreach (NbdCall call in _calls)
        {
            if (call.IsUnderWay) call.Complete(null);
        }
    }

    /// <summary>Ends the connection soon. Any thread.</summary>
    public void Abort() => channel.Abort();

    /// <summary>
    /// Takes no more requests, and says goodbye, as the protocol wants it, when those under way are answered; the
    /// connection is lost soon after.
    /// </summary>
    public void EndWhenIdle()
    {
        if (IsEnding || _isLost) return;
        IsEnding = true;
        if (UnderWay == 0) SayGoodbye();
    }

    /// <summary>Asks the server; null when the connection is lost before it has answered.</summary>
    /// <param name="command">What is asked.</param>
    /// <param name="flags">How.</param>
    /// <param name="offset">The first byte concerned.</param>
    /// <param name="length">Bytes concerned.</param>
    /// <param name="data">Data to be written, or room for what is read.</param>
    public ValueTask<BlockStatus?> CallAsync(
        NbdCommand command, ushort flags, long offset, int length, Memory<byte> data)
    {
        if (_isLost || IsEnding) return new ValueTask<BlockStatus?>((BlockStatus?)null);
        if (UnderWay++ == 0) LastAnswer = Stopwatch.GetTimestamp();
        NbdCall call = Rent();
        call.Begin(command, flags, offset, length, data);
        _outbox.Send(call);
        return call.Task;
    }

    private void SayGoodbye()
    {
        NbdCall call = Rent();
        call.Begin(NbdCommand.Disconnect, 0, 0, 0, default);
        _outbox.Send(call);
        _outbox.End();
    }

    private NbdCall Rent()
    {
        if (_free.TryPop(out NbdCall? call)) return call;
        call = new NbdCall(_calls.Count); // off the path: none is free, so there are more from now on
        _calls.Add(call);
        return call;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<bool> ReceiveAsync()
    {
        await channel.ReadAsync(_head[..sizeof(uint)]);
        uint magic = BinaryPrimitives.ReadUInt32BigEndian(_head.Span);
        if (magic == NbdProtocol.ChunkMagic && export.IsStructured) return await ReceiveChunkAsync();
        if (magic != NbdProtocol.SimpleReplyMagic)
            throw new NbdException($"the server sent {magic:x8} where a reply was to begin");
        await channel.ReadAsync(_head[sizeof(uint)..NbdProtocol.SimpleReplySize]);
        NbdCall call = Find(BinaryPrimitives.ReadUInt64BigEndian(_head.Span[8..]));
        uint error = BinaryPrimitives.ReadUInt32BigEndian(_head.Span[4..]);
        if (error != 0) call.Status = StatusOf(error, call, "");
        else if (call.Command == NbdCommand.Read) call.Received = await channel.ReadAsync(call.Data);
        Complete(call);
        return true;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<bool> ReceiveChunkAsync()
    {
        await channel.ReadAsync(_head[sizeof(uint)..]);
        ushort flags = BinaryPrimitives.ReadUInt16BigEndian(_head.Span[4..]);
        ushort type = BinaryPrimitives.ReadUInt16BigEndian(_head.Span[6..]);
        NbdCall call = Find(BinaryPrimitives.ReadUInt64BigEndian(_head.Span[8..]));
        uint length = BinaryPrimitives.ReadUInt32BigEndian(_head.Span[16..]);
        if (type == NbdProtocol.ChunkData) await ReceiveDataAsync(call, length);
        else if (type == NbdProtocol.ChunkHole) await ReceiveHoleAsync(call, length);
        else if ((type & NbdProtocol.ChunkErrorBit) != 0) await ReceiveErrorAsync(call, length);
        else if (type != NbdProtocol.ChunkNone || length != 0)
            throw new NbdException($"the server sent a chunk of kind {type} with {length} bytes");
        if ((flags & NbdProtocol.Done) == 0) return true;
        if (call is { Command: NbdCommand.Read, Status: BlockStatus.Okay } && call.Received != call.Length)
            throw new NbdException($"the server answered a read of {call.Length} bytes with {call.Received}");
        Complete(call);
        return true;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<bool> ReceiveDataAsync(NbdCall call, uint length)
    {
        if (length <= sizeof(ulong)) throw new NbdException("the server sent a chunk of data without data");
        Memory<byte> place = await FindPlaceAsync(call, length - sizeof(ulong));
        await channel.ReadAsync(place);
        return true;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<bool> ReceiveHoleAsync(NbdCall call, uint length)
    {
        if (length != sizeof(ulong) + sizeof(uint))
            throw new NbdException($"the server described a hole in {length} bytes");
        await channel.ReadAsync(_head[..(int)length]);
        TakePlace(
            call, BinaryPrimitives.ReadInt64BigEndian(_head.Span),
            BinaryPrimitives.ReadUInt32BigEndian(_head.Span[sizeof(ulong)..])).Span.Clear();
        return true;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<Memory<byte>> FindPlaceAsync(NbdCall call, uint length)
    {
        await channel.ReadAsync(_head[..sizeof(ulong)]);
        return TakePlace(call, BinaryPrimitives.ReadInt64BigEndian(_head.Span), length);
    }

    // A part of what was asked for. Parts should not overlap: where a server's do, they leave a hole, in which nothing
    // may show that the memory held before.
    private static Memory<byte> TakePlace(NbdCall call, long offset, uint length)
    {
        long at = offset - call.Offset;
        if (call.Command != NbdCommand.Read || at < 0 || at > call.Length || length > call.Length - at
            || length > call.Length - call.Received)
            throw new NbdException($"the server sent {length} bytes at {offset} for a {call.Command} of "
                + $"{call.Length} bytes at {call.Offset}");
        if (call.Received == 0 && length < call.Length) call.Data.Span.Clear();
        call.Received += (int)length;
        return call.Data.Slice((int)at, (int)length);
    }

    private async ValueTask<bool> ReceiveErrorAsync(NbdCall call, uint length) // off the path: an error of the server
    {
        const int MinLength = sizeof(uint) + sizeof(ushort);
        if (length is < MinLength or > MaxErrorText)
            throw new NbdException($"the server described an error in {length} bytes");
        byte[] data = new byte[length];
        await channel.ReadAsync(data);
        uint error = BinaryPrimitives.ReadUInt32BigEndian(data);
        int textLength = Math.Min(
            (int)BinaryPrimitives.ReadUInt16BigEndian(data.AsSpan(sizeof(uint))), data.Length - MinLength);
        call.Status = StatusOf(error, call, System.Text.Encoding.UTF8.GetString(data, MinLength, textLength));
        return true;
    }

    private NbdCall Find(ulong cookie)
    {
        int slot = (int)(uint)cookie;
        if (slot >= 0 && slot < _calls.Count && _calls[slot].IsUnderWay && _calls[slot].Cookie == cookie)
            return _calls[slot];
        throw new NbdException("the server answers what it was not asked, or for the second time");
    }

    private void Complete(NbdCall call)
    {
        UnderWay--;
        LastAnswer = Stopwatch.GetTimestamp();
        call.Complete(call.Status);
        _free.Push(call);
        if (IsEnding && UnderWay == 0) SayGoodbye();
    }

    private BlockStatus StatusOf(uint error, NbdCall call, string text)
    {
        string cause = error switch
        {
            (uint)NbdError.NotPermitted => "operation not permitted",
            (uint)NbdError.Io => "input/output error",
            (uint)NbdError.Invalid => "invalid argument",
            (uint)NbdError.NoSpace => "no space left on device",
            (uint)NbdError.NotSupported => "operation not supported",
            (uint)NbdError.ShuttingDown => "the server ends",
            _ => $"error {error}", // off the path: an error of the server
        };
        if (error == 0) throw new NbdException("the server says that an error is none");
        // A server that ends is one that is lost: the next may do it.
        if (error == (uint)NbdError.ShuttingDown)
        {
            IsServerEnding = true;
            throw new NbdException("the server ends");
        }

        warn($"{call.Command} of {call.Length} bytes at {call.Offset} failed on the server: "
            + $"{cause}{(text.Length > 0 ? $" ({text})" : "")}");
        return error switch
        {
            (uint)NbdError.NoSpace => BlockStatus.NoSpace,
            (uint)NbdError.NotSupported => BlockStatus.Unsupported,
            _ => BlockStatus.IoError,
        };
    }
}
