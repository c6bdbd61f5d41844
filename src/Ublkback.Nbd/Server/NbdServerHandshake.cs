using System.Buffers;
using System.Buffers.Binary;
using System.Text;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Nbd.Server;

/// <summary>
/// Negotiates with a client, in the newstyle, fixed or not. What it sends is hostile input. On a worker.
/// </summary>
/// <param name="channel">The connection.</param>
/// <param name="options">What is offered, and how.</param>
/// <param name="export">What the disk is like.</param>
/// <param name="onChosen">Runs before a client is told that it may use the disk.</param>
internal sealed class NbdServerHandshake(
    NbdChannel channel, NbdServerOptions options, NbdExport export, Func<Task> onChosen)
{
    /// <summary>The number of the one context of block status.</summary>
    public const uint AllocationId = 1;

    private const int MaxOption = 8 << 10; // bytes: a name and a few numbers
    private const int MaxOptions = 100; // a client that asks more never ends

    private NbdChannel _channel = channel;

    /// <summary>The channel to go on with.</summary>
    public NbdChannel Channel => _channel;

    /// <summary>Whether the client takes chunks.</summary>
    public bool IsStructured { get; private set; }

    /// <summary>Whether the client may ask which blocks are allocated.</summary>
    public bool WantsAllocation { get; private set; }

    /// <summary>Whether the disk can tell which blocks are allocated.</summary>
    public bool HasAllocation { get; init; }

    // Who takes no chunks cannot ask for a single one.
    private NbdExportFlags OfferedFlags =>
        IsStructured ? export.Flags : export.Flags & ~NbdExportFlags.DontFragment;

    /// <summary>Negotiates; false when the client goes away.</summary>
    /// <exception cref="IOException">The connection is lost, or the client talks nonsense.</exception>
    public async Task<bool> RunAsync()
    {
        _channel.Write(NbdProtocol.InitialMagic);
        _channel.Write(NbdProtocol.OptionMagic);
        _channel.Write((ushort)(NbdProtocol.FixedNewStyle | NbdProtocol.NoZeroes));
        await _channel.FlushAsync();
        uint flags = await _channel.ReadUInt32Async();
        if ((flags & ~(NbdProtocol.FixedNewStyle | NbdProtocol.NoZeroes)) != 0)
            throw new NbdException($"the client wants flags {flags:x}");
        bool wantsPadding = (flags & NbdProtocol.NoZeroes) == 0;
        for (int count = 0; count < MaxOptions; count++)
        {
            if (await _channel.ReadUInt64Async() != NbdProtocol.OptionMagic)
                throw new NbdException("the client does not speak NBD");
            NbdOption option = (NbdOption)await _channel.ReadUInt32Async();
            if ((flags & NbdProtocol.FixedNewStyle) == 0 && option != NbdOption.ExportName)
                throw new NbdException($"the client sent option {(uint)option} without the fixed newstyle");
            uint length = await _channel.ReadUInt32Async();
            if (length > MaxOption) throw new NbdException($"the client sent an option with {length} bytes");
            byte[] data = new byte[length];
            await _channel.ReadAsync(data);
            if (await AnswerAsync(option, data, wantsPadding) is bool isChosen) return isChosen;
        }

        throw new NbdException($"the client asked {MaxOptions} options and chose no disk");
    }

    // Null when there is more to negotiate, else whether the disk is chosen.
    private async ValueTask<bool?> AnswerAsync(NbdOption option, byte[] data, bool wantsPadding)
    {
        bool isSafe = options.Tls is null || _channel.IsSecret;
        switch (option)
        {
            case NbdOption.Abort:
                await ReplyAsync(option, NbdOptionReply.Ack);
                return false;
            case NbdOption.StartTls when options.Tls is not null && !_channel.IsSecret:
                await ReplyAsync(option, NbdOptionReply.Ack);
                _channel = await _channel.SecureAsync(options.Tls);
                return null;
            case NbdOption.ExportName:
                // There is no answer to this option that says no.
                if (!isSafe || !IsKnown(data)) throw new NbdException("the client wants a disk that is not offered");
                await onChosen();
                _channel.Write((ulong)export.Size);
                _channel.Write((ushort)OfferedFlags);
                if (wantsPadding) _channel.Output.Write(new byte[NbdProtocol.Padding]);
                await _channel.FlushAsync();
                return true;
            case NbdOption.StructuredReply or NbdOption.List or NbdOption.Info or NbdOption.Go
                or NbdOption.ListMetaContext or NbdOption.SetMetaContext when !isSafe:
                await ReplyAsync(option, NbdOptionReply.TlsRequired, "this server wants TLS");
                return null;
            case NbdOption.StructuredReply:
                IsStructured = data.Length == 0;
                await ReplyAsync(option, IsStructured ? NbdOptionReply.Ack : NbdOptionReply.Invalid);
                return null;
            case NbdOption.List:
                byte[] name = Encoding.UTF8.GetBytes(options.ExportName);
                byte[] entry = new byte[sizeof(uint) + name.Length];
                BinaryPrimitives.WriteInt32BigEndian(entry, name.Length);
                name.CopyTo(entry, sizeof(uint));
                Write(option, NbdOptionReply.Server, entry);
                await ReplyAsync(option, NbdOptionReply.Ack);
                return null;
            case NbdOption.Info or NbdOption.Go:
                return await DescribeAsync(option, data) && option == NbdOption.Go ? true : null;
            case NbdOption.ListMetaContext or NbdOption.SetMetaContext:
                await SetContextsAsync(option, data);
                return null;
            default:
                await ReplyAsync(option, NbdOptionReply.Unsupported);
                return null;
        }
    }

    private async ValueTask<bool> DescribeAsync(NbdOption option, byte[] data)
    {
        if (!TryReadName(data, out ReadOnlyMemory<byte> name, out _))
        {
            await ReplyAsync(option, NbdOptionReply.Invalid);
            return false;
        }

        if (!IsKnown(name.Span))
        {
            await ReplyAsync(option, NbdOptionReply.Unknown, $"the only export here is '{options.ExportName}'");
            return false;
        }

        if (option == NbdOption.Go) await onChosen();
        byte[] info = new byte[12];
        BinaryPrimitives.WriteUInt16BigEndian(info, NbdProtocol.InfoExport);
        BinaryPrimitives.WriteInt64BigEndian(info.AsSpan(2), export.Size);
        BinaryPrimitives.WriteUInt16BigEndian(info.AsSpan(10), (ushort)OfferedFlags);
        Write(option, NbdOptionReply.Info, info);
        byte[] sizes = new byte[14];
        BinaryPrimitives.WriteUInt16BigEndian(sizes, NbdProtocol.InfoBlockSize);
        BinaryPrimitives.WriteInt32BigEndian(sizes.AsSpan(2), export.MinBlock);
        BinaryPrimitives.WriteInt32BigEndian(sizes.AsSpan(6), Math.Max(4096, export.MinBlock));
        BinaryPrimitives.WriteInt32BigEndian(sizes.AsSpan(10), export.MaxBlock);
        Write(option, NbdOptionReply.Info, sizes);
        await ReplyAsync(option, NbdOptionReply.Ack);
        return true;
    }

    // The name of the export, the number of queries, and each with its length.
    private async ValueTask SetContextsAsync(NbdOption option, byte[] data)
    {
        bool isSetting = option == NbdOption.SetMetaContext;
        if (isSetting) WantsAllocation = false;
        if (!IsStructured || !TryReadName(data, out ReadOnlyMemory<byte> name, out ReadOnlyMemory<byte> rest)
            || rest.Length < sizeof(uint))
        {
            await ReplyAsync(option, NbdOptionReply.Invalid);
            return;
        }

        if (!IsKnown(name.Span))
        {
            await ReplyAsync(option, NbdOptionReply.Unknown);
            return;
        }

        uint count = BinaryPrimitives.ReadUInt32BigEndian(rest.Span);
        rest = rest[sizeof(uint)..];
        bool wants = count == 0 && !isSetting;
        for (uint i = 0; i < count; i++)
        {
            if (!TryReadName(rest, out ReadOnlyMemory<byte> query, out rest))
            {
                await ReplyAsync(option, NbdOptionReply.Invalid);
                return;
            }

            string text = Encoding.UTF8.GetString(query.Span);
            wants |= text == NbdProtocol.AllocationContext || (!isSetting && text == "base:");
        }

        if (wants && HasAllocation)
        {
            byte[] context = new byte[sizeof(uint) + NbdProtocol.AllocationContext.Length];
            BinaryPrimitives.WriteUInt32BigEndian(context, isSetting ? AllocationId : 0);
            Encoding.UTF8.GetBytes(NbdProtocol.AllocationContext, context.AsSpan(sizeof(uint)));
            Write(option, NbdOptionReply.MetaContext, context);
            if (isSetting) WantsAllocation = true;
        }

        await ReplyAsync(option, NbdOptionReply.Ack);
    }

    private bool IsKnown(ReadOnlySpan<byte> name) => name.SequenceEqual(Encoding.UTF8.GetBytes(options.ExportName));

    private static bool TryReadName(
        ReadOnlyMemory<byte> data, out ReadOnlyMemory<byte> name, out ReadOnlyMemory<byte> rest)
    {
        name = rest = default;
        if (data.Length < sizeof(uint)) return false;
        uint length = BinaryPrimitives.ReadUInt32BigEndian(data.Span);
        if (length > NbdProtocol.MaxName || length > data.Length - sizeof(uint)) return false;
        name = data.Slice(sizeof(uint), (int)length);
        rest = data[(sizeof(uint) + (int)length)..];
        return true;
    }

    private ValueTask<bool> ReplyAsync(NbdOption option, NbdOptionReply reply, string text = "")
    {
        Write(option, reply, Encoding.UTF8.GetBytes(text));
        return _channel.FlushAsync();
    }

    private void Write(NbdOption option, NbdOptionReply reply, byte[] data)
    {
        _channel.Write(NbdProtocol.OptionReplyMagic);
        _channel.Write((uint)option);
        _channel.Write((uint)reply);
        _channel.Write((uint)data.Length);
        _channel.Output.Write(data);
    }
}
