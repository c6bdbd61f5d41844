using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Sockets;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Nbd.Server;

/// <summary>
/// One client of a server. It has a bounded number of requests and bytes in hand; what is more waits in its socket. On
/// one worker.
/// </summary>
internal sealed class NbdSession
{
    private const int MaxRequests = 256;
    private const int MaxHeldBytes = 16 << 20; // beyond it a request is taken only when it is alone
    private const int MaxPooled = 1 << 20; // bytes; larger requests have memory of their own

    private static readonly TimeSpan MaxNegotiation = TimeSpan.FromSeconds(30);

    private readonly NbdServer _server;
    private readonly SocketStream _socket;
    private readonly LoopCondition _changed = new();
    private readonly Stack<NbdReply> _free = new();
    private readonly Memory<byte> _head = new byte[NbdProtocol.RequestSize];
    private RequestPool? _buffers;
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private NbdOutbox? _outbox;
    private volatile bool _isServing;
    private bool _isNegotiated; // or waits for others, which is not its fault
    private bool _hasAllocation;
    private int _executing;
    private int _held;
    private long _heldBytes;

    public NbdSession(NbdServer server, SocketStream socket)
    {
        _server = server;
        _socket = socket;
    }

    /// <summary>Whether the client takes chunks.</summary>
    public bool IsStructured { get; private set; }

    /// <summary>
    /// Whether the client was being served and is gone; of its requests some may be under way. Any thread, while the
    /// session is known to the server.
    /// </summary>
    public bool IsOrphaned => _isServing && _socket.IsPeerGone;

    /// <summary>Whether the client is gone. Any thread, while the session is known to the server.</summary>
    public bool IsGone => _socket.IsPeerGone;

    /// <summary>Ends when nothing of the session is left.</summary>
    public Task Ended => _ended.Task;

    /// <summary>Serves the client until it goes. What becomes of it is the server's to say.</summary>
    public async Task RunAsync()
    {
        _buffers = _server.Buffers.Current;
        NbdChannel channel = new(_socket);
        string? fault = null;
        _ = LimitNegotiationAsync();
        try
        {
            NbdServerHandshake handshake = new(
                channel, _server.Options, _server.Export,
                BeginServingAsync)
            { HasAllocation = _server.Image is IAllocationMap };
            bool isChosen = await handshake.RunAsync();
            _isNegotiated = true;
            channel = handshake.Channel;
            (IsStructured, _hasAllocation) = (handshake.IsStructured, handshake.WantsAllocation);
            if (isChosen) await ServeAsync(channel);
        }
        catch (IOException failure)
        {
            fault = failure.Message;
        }

        _isNegotiated = true;
        channel.Abort();
        while (_executing > 0) await _changed.WaitAsync();
        _server.Forget(this, fault);
        await channel.DisposeAsync();
        _ended.SetResult();
    }

    /// <summary>Ends the connection soon. Any thread.</summary>
    public void Abort() => _socket.Abort();

    /// <summary>A request has been done.</summary>
    public void Finish(NbdReply reply)
    {
        _executing--;
        _outbox!.Send(reply);
        _changed.WakeAll();
    }

    /// <summary>An answer has been handed to the connection.</summary>
    public void Recycle(NbdReply reply)
    {
        _held--;
        _heldBytes -= reply.HeldBytes;
        if (reply.Buffer is BlockRequest buffer && buffer.Data.Length <= MaxPooled) _buffers!.Return(buffer);
        reply.Buffer = null;
        _free.Push(reply);
        _changed.WakeAll();
    }

    // One that is not served yet waits for those who are, and nobody waits for it.
    private async Task BeginServingAsync()
    {
        _isNegotiated = true;
        await _server.AwaitOrphansAsync();
        _isServing = true;
    }

    // A client that says nothing takes the place of another.
    private async Task LimitNegotiationAsync()
    {
        await BlockLoop.Current.DelayAsync(MaxNegotiation);
        if (!_isNegotiated) Abort();
    }

    private async Task ServeAsync(NbdChannel channel)
    {
        _outbox = new NbdOutbox(channel);
        Task sending = _outbox.RunAsync();
        try
        {
            while (!_outbox.IsLost && await TakeAsync(channel)) { }
        }
        finally
        {
            while (_executing > 0) await _changed.WaitAsync();
            _outbox.End();
            await sending;
        }
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<bool> TakeAsync(NbdChannel channel)
    {
        await channel.ReadAsync(_head);
        if (BinaryPrimitives.ReadUInt32BigEndian(_head.Span) != NbdProtocol.RequestMagic)
            throw new NbdException("the client sent no request where one was to begin");
        NbdReply reply = _free.TryPop(out NbdReply? free) ? free : new NbdReply(this, _server.Image);
        reply.Flags = BinaryPrimitives.ReadUInt16BigEndian(_head.Span[4..]);
        reply.Command = (NbdCommand)BinaryPrimitives.ReadUInt16BigEndian(_head.Span[6..]);
        reply.Cookie = BinaryPrimitives.ReadUInt64BigEndian(_head.Span[8..]);
        reply.Offset = BinaryPrimitives.ReadInt64BigEndian(_head.Span[16..]);
        reply.Length = BinaryPrimitives.ReadUInt32BigEndian(_head.Span[24..]);
        if (reply.Command == NbdCommand.Disconnect) return false;
        bool isWrite = reply.Command == NbdCommand.Write;
        if (isWrite && reply.Length > NbdProtocol.DefaultMaxBlock)
            throw new NbdException($"the client wants to write {reply.Length} bytes at once");

        NbdError error = Check(reply);
        bool hasData = error == NbdError.None && reply.Command is NbdCommand.Read or NbdCommand.Write;
        int bytes = hasData ? (int)reply.Length : 0;
        while (_held >= MaxRequests || (_held > 0 && _heldBytes + bytes > MaxHeldBytes)) await _changed.WaitAsync();
        if (_outbox!.IsLost) return false;
        reply.Buffer = hasData ? RentBuffer(bytes) : null;
        _held++;
        _heldBytes += bytes;
        if (isWrite && !hasData) await channel.SkipAsync(reply.Length);
        else if (isWrite) await channel.ReadAsync(reply.Buffer!.Data);
        if (error == NbdError.None)
        {
            _executing++;
            reply.Start();
        }
        else
        {
            reply.Refuse(error);
            _outbox.Send(reply);
        }

        return true;
    }

    private BlockRequest RentBuffer(int bytes) => bytes <= MaxPooled
        ? _buffers!.Rent(BlockOperation.Read, 0, bytes / BlockRequest.SectorSize)
        : new BlockRequest { Data = PinnedMemory.AllocatePages(bytes) };

    // What was not offered cannot be promised. Durability may be asked of every command, if of any.
    private bool HasUnknownFlags(NbdReply reply)
    {
        int known = reply.Command switch
        {
            NbdCommand.Read when IsStructured => NbdProtocol.DontFragment,
            NbdCommand.WriteZeroes => NbdProtocol.NoHole,
            NbdCommand.BlockStatus => NbdProtocol.RequestOne,
            _ => 0,
        };
        if (_server.Export.Can(NbdExportFlags.ForceUnitAccess)) known |= NbdProtocol.ForceUnitAccess;
        return (reply.Flags & ~known) != 0;
    }

    private NbdError Check(NbdReply reply)
    {
        NbdExport export = _server.Export;
        long size = export.Size;
        NbdExportFlags? needed = reply.Command switch
        {
            NbdCommand.Read or NbdCommand.Write => NbdExportFlags.HasFlags,
            NbdCommand.Flush => NbdExportFlags.Flush,
            NbdCommand.Trim => NbdExportFlags.Trim,
            NbdCommand.WriteZeroes => NbdExportFlags.WriteZeroes,
            NbdCommand.BlockStatus when _hasAllocation => NbdExportFlags.HasFlags,
            _ => null,
        };
        if (HasUnknownFlags(reply)) return NbdError.Invalid;
        bool writes = reply.Command is NbdCommand.Write or NbdCommand.Trim or NbdCommand.WriteZeroes;
        if (writes && export.Can(NbdExportFlags.ReadOnly)) return NbdError.NotPermitted;
        if (needed is not NbdExportFlags flag || !export.Can(flag)) return NbdError.Invalid;
        if (reply.Command == NbdCommand.Flush)
            return reply.Length == 0 && reply.Offset == 0 ? NbdError.None : NbdError.Invalid;
        bool isWhole = reply.Offset % export.MinBlock == 0 && reply.Length % (uint)export.MinBlock == 0
            && reply.Length > 0;
        bool isInside = reply.Offset >= 0 && reply.Offset <= size && reply.Length <= size - reply.Offset;
        if (!isInside) return writes ? NbdError.NoSpace : NbdError.Invalid;
        bool isTooMuch = reply.Command == NbdCommand.Read && reply.Length > NbdProtocol.DefaultMaxBlock;
        return isWhole && !isTooMuch ? NbdError.None : NbdError.Invalid;
    }
}
