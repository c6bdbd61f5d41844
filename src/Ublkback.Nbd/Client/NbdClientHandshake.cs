using System.Buffers;
using System.Buffers.Binary;
using System.Net.Security;
using System.Text;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Nbd.Client;

/// <summary>Negotiates with a server, in the newstyle, fixed or not. On a worker.</summary>
internal static class NbdClientHandshake
{
    private const int MaxReply = 64 << 10; // bytes of a reply to an option; longer ones are nonsense
    private const int BlockSizeInfoSize = 14;
    private const int ExportInfoSize = 12;

    /// <summary>Chooses an export.</summary>
    /// <param name="channel">The connection, which nothing was read from.</param>
    /// <param name="export">Its name.</param>
    /// <param name="tls">How to speak TLS; null to speak in the clear.</param>
    /// <returns>The channel to go on with, and what the export is like.</returns>
    /// <exception cref="IOException">The server refuses, is none, or the connection is lost.</exception>
    public static async Task<(NbdChannel Channel, NbdExport Export)> RunAsync(
        NbdChannel channel, string export, SslClientAuthenticationOptions? tls)
    {
        if (await channel.ReadUInt64Async() != NbdProtocol.InitialMagic)
            throw new NbdException("there is no NBD server");
        if (await channel.ReadUInt64Async() != NbdProtocol.OptionMagic)
            throw new NbdException("the server speaks the old style of NBD");
        ushort flags = await channel.ReadUInt16Async();
        channel.Write((uint)(flags & (NbdProtocol.FixedNewStyle | NbdProtocol.NoZeroes)));
        bool isPadded = (flags & NbdProtocol.NoZeroes) == 0;
        if ((flags & NbdProtocol.FixedNewStyle) == 0)
        {
            // Such a server understands one option only.
            return tls is null
                ? (channel, await ChooseAsync(channel, export, isStructured: false, isPadded))
                : throw new NbdException("the server does not know the fixed newstyle of NBD, which TLS needs");
        }

        if (tls is not null)
        {
            (NbdOptionReply reply, byte[] text) = await AskAsync(channel, NbdOption.StartTls, []);
            if (reply != NbdOptionReply.Ack) throw Refusal("TLS", reply, text);
            channel = await channel.SecureAsync(tls);
        }

        (NbdOptionReply structured, _) = await AskAsync(channel, NbdOption.StructuredReply, []);
        bool isStructured = structured == NbdOptionReply.Ack;
        return (channel, await GoAsync(channel, export, isStructured)
            ?? await ChooseAsync(channel, export, isStructured, isPadded));
    }

    // The oldest way. Who refuses closes the connection.
    private static async Task<NbdExport> ChooseAsync(
        NbdChannel channel, string name, bool isStructured, bool isPadded)
    {
        SendOption(channel, NbdOption.ExportName, Encoding.UTF8.GetBytes(name));
        await channel.FlushAsync();
        try
        {
            long size = (long)await channel.ReadUInt64Async();
            NbdExportFlags flags = (NbdExportFlags)await channel.ReadUInt16Async();
            if (isPadded) await channel.SkipAsync(NbdProtocol.Padding);
            return size >= 0
                ? new NbdExport(size, flags, MinBlock: 1, NbdProtocol.DefaultMaxBlock, isStructured)
                : throw new NbdException($"the server says of export '{name}' that it has {size} bytes");
        }
        catch (NbdException failure) when (failure.Message.StartsWith("the other end", StringComparison.Ordinal))
        {
            throw new NbdException($"{failure.Message}: it may have no export '{name}'", failure);
        }
    }

    // Null when the server does not know how.
    private static async Task<NbdExport?> GoAsync(NbdChannel channel, string name, bool isStructured)
    {
        byte[] encoded = Encoding.UTF8.GetBytes(name);
        byte[] request = new byte[sizeof(uint) + encoded.Length + sizeof(ushort) + sizeof(ushort)];
        BinaryPrimitives.WriteInt32BigEndian(request, encoded.Length);
        encoded.CopyTo(request, sizeof(uint));
        // one kind of information is wanted
        BinaryPrimitives.WriteUInt16BigEndian(request.AsSpan(sizeof(uint) + encoded.Length), 1);
        BinaryPrimitives.WriteUInt16BigEndian(
            request.AsSpan(sizeof(uint) + encoded.Length + sizeof(ushort)), NbdProtocol.InfoBlockSize);
        SendOption(channel, NbdOption.Go, request);
        await channel.FlushAsync();

        long size = -1;
        NbdExportFlags flags = default;
        uint minBlock = 1, maxBlock = NbdProtocol.DefaultMaxBlock;
        while (true)
        {
            (NbdOptionReply reply, byte[] data) = await ReadReplyAsync(channel, NbdOption.Go);
            if (reply == NbdOptionReply.Ack) break;
            if (reply == NbdOptionReply.Unsupported && size < 0) return null;
            if (reply != NbdOptionReply.Info) throw Refusal($"export '{name}'", reply, data);
            ushort kind = data.Length >= sizeof(ushort)
                ? BinaryPrimitives.ReadUInt16BigEndian(data)
                : throw new NbdException("the server's information on the export is cut off");
            if (kind == NbdProtocol.InfoExport && data.Length == ExportInfoSize)
            {
                size = BinaryPrimitives.ReadInt64BigEndian(data.AsSpan(2));
                flags = (NbdExportFlags)BinaryPrimitives.ReadUInt16BigEndian(data.AsSpan(10));
            }
            else if (kind == NbdProtocol.InfoBlockSize && data.Length == BlockSizeInfoSize)
            {
                minBlock = BinaryPrimitives.ReadUInt32BigEndian(data.AsSpan(2));
                maxBlock = BinaryPrimitives.ReadUInt32BigEndian(data.AsSpan(10));
            }
        }

        if (size < 0) throw new NbdException($"the server says of export '{name}' that it has {size} bytes");
        if (minBlock == 0 || (minBlock & (minBlock - 1)) != 0 || maxBlock < minBlock)
            throw new NbdException($"the server's sizes of requests make no sense: {minBlock} to {maxBlock} bytes");
        return new NbdExport(
            size, flags, (int)Math.Min(minBlock, 1 << 30), (int)Math.Min(maxBlock, NbdProtocol.DefaultMaxBlock),
            isStructured);
    }

    private static async Task<(NbdOptionReply Reply, byte[] Data)> AskAsync(
        NbdChannel channel, NbdOption option, byte[] data)
    {
        SendOption(channel, option, data);
        await channel.FlushAsync();
        return await ReadReplyAsync(channel, option);
    }

    private static void SendOption(NbdChannel channel, NbdOption option, byte[] data)
    {
        channel.Write(NbdProtocol.OptionMagic);
        channel.Write((uint)option);
        channel.Write((uint)data.Length);
        channel.Output.Write(data);
    }

    private static async Task<(NbdOptionReply Reply, byte[] Data)> ReadReplyAsync(NbdChannel channel, NbdOption option)
    {
        if (await channel.ReadUInt64Async() != NbdProtocol.OptionReplyMagic)
            throw new NbdException("the server does not answer as NBD wants it");
        uint about = await channel.ReadUInt32Async();
        if (about != (uint)option)
            throw new NbdException($"the server answers option {about}, and was asked {(uint)option}");
        NbdOptionReply reply = (NbdOptionReply)await channel.ReadUInt32Async();
        uint length = await channel.ReadUInt32Async();
        if (length > MaxReply) throw new NbdException($"the server answers an option with {length} bytes");
        byte[] data = new byte[length];
        await channel.ReadAsync(data);
        return (reply, data);
    }

    private static NbdException Refusal(string what, NbdOptionReply reply, byte[] text) => new(
        $"the server refuses {what} ({reply switch
        {
            NbdOptionReply.Unknown => "it has none of that name",
            NbdOptionReply.TlsRequired => "it wants TLS: write nbds: instead of nbd:",
            NbdOptionReply.Policy => "its policy forbids it",
            NbdOptionReply.Unsupported => "it does not know how",
            _ => reply.ToString(),
        }}){(text.Length > 0 ? ": " + Encoding.UTF8.GetString(text) : "")}");
}
