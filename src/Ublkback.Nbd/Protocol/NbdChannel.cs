using System.Buffers;
using System.Buffers.Binary;
using System.IO.Pipelines;
using System.Net.Security;
using System.Runtime.CompilerServices;
using System.Security.Authentication;
using Ublkback.Block;
using Ublkback.Linux.Sockets;

namespace Ublkback.Nbd.Protocol;

/// <summary>
/// The bytes of a connection in both directions, in the clear or by TLS. On the worker whose thread it is.
/// </summary>
/// <remarks>
/// In the clear everything ends on the worker's thread, so what waits for it goes on at once; TLS of the framework may
/// end elsewhere, and the worker's loop is asked to go on.
/// </remarks>
internal sealed class NbdChannel : IAsyncDisposable
{
    private const int BufferSize = 128 << 10;
    private const int MinReadSize = 16 << 10;

    private readonly SocketStream _socket;
    private readonly Stream _stream;
    private readonly PipeReader _input;
    private readonly Memory<byte> _number = new byte[sizeof(ulong)];

    /// <summary>A channel in the clear.</summary>
    public NbdChannel(SocketStream socket)
        : this(socket, socket)
    {
    }

    private NbdChannel(SocketStream socket, Stream stream)
    {
        _socket = socket;
        _stream = stream;
        _input = PipeReader.Create(
            stream, new StreamPipeReaderOptions(bufferSize: BufferSize, minimumReadSize: MinReadSize, leaveOpen: true));
        Output = PipeWriter.Create(stream, new StreamPipeWriterOptions(minimumBufferSize: BufferSize, leaveOpen: true));
    }

    /// <summary>What is written here is sent when it is flushed.</summary>
    public PipeWriter Output { get; }

    /// <summary>Whether nobody can listen.</summary>
    public bool IsSecret => _stream is SslStream;

    /// <summary>Reads as many bytes as there is room for.</summary>
    /// <exception cref="IOException">The connection is lost.</exception>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<int> ReadAsync(Memory<byte> into)
    {
        Memory<byte> rest = into;
        while (!rest.IsEmpty)
        {
            ReadResult result = await _input.ReadAsync().ConfigureAwait(IsSecret);
            int length = (int)Math.Min(result.Buffer.Length, rest.Length);
            result.Buffer.Slice(0, length).CopyTo(rest.Span);
            _input.AdvanceTo(result.Buffer.GetPosition(length));
            if (length == 0 && result.IsCompleted) throw new NbdException("the other end closed the connection");
            rest = rest[length..];
        }

        return into.Length;
    }

    /// <summary>Reads over bytes that nobody wants.</summary>
    /// <exception cref="IOException">The connection is lost.</exception>
    public async ValueTask SkipAsync(long length)
    {
        while (length > 0)
        {
            ReadResult result = await _input.ReadAsync().ConfigureAwait(IsSecret);
            long skipped = Math.Min(result.Buffer.Length, length);
            _input.AdvanceTo(result.Buffer.GetPosition(skipped));
            if (skipped == 0 && result.IsCompleted) throw new NbdException("the other end closed the connection");
            length -= skipped;
        }
    }

    /// <summary>Reads a number.</summary>
    public async ValueTask<ulong> ReadUInt64Async()
    {
        await ReadAsync(_number);
        return BinaryPrimitives.ReadUInt64BigEndian(_number.Span);
    }

    /// <summary>Reads a number.</summary>
    public async ValueTask<uint> ReadUInt32Async()
    {
        await ReadAsync(_number[..sizeof(uint)]);
        return BinaryPrimitives.ReadUInt32BigEndian(_number.Span);
    }

    /// <summary>Reads a number.</summary>
    public async ValueTask<ushort> ReadUInt16Async()
    {
        await ReadAsync(_number[..sizeof(ushort)]);
        return BinaryPrimitives.ReadUInt16BigEndian(_number.Span);
    }

    /// <summary>Writes a number.</summary>
    public void Write(ulong value)
    {
        BinaryPrimitives.WriteUInt64BigEndian(Output.GetSpan(sizeof(ulong)), value);
        Output.Advance(sizeof(ulong));
    }

    /// <summary>Writes a number.</summary>
    public void Write(uint value)
    {
        BinaryPrimitives.WriteUInt32BigEndian(Output.GetSpan(sizeof(uint)), value);
        Output.Advance(sizeof(uint));
    }

    /// <summary>Writes a number.</summary>
    public void Write(ushort value)
    {
        BinaryPrimitives.WriteUInt16BigEndian(Output.GetSpan(sizeof(ushort)), value);
        Output.Advance(sizeof(ushort));
    }

    /// <summary>The same connection by TLS, as its client. This channel is not used any more.</summary>
    /// <exception cref="IOException">The other end is not who it should be, or does not accept us.</exception>
    public Task<NbdChannel> SecureAsync(SslClientAuthenticationOptions options) =>
        SecureAsync(tls => tls.AuthenticateAsClientAsync(options));

    /// <summary>The same connection by TLS, as its server. This channel is not used any more.</summary>
    /// <exception cref="IOException">The client does not accept us, or we do not accept it.</exception>
    public Task<NbdChannel> SecureAsync(SslServerAuthenticationOptions options) =>
        SecureAsync(tls => tls.AuthenticateAsServerAsync(options));

    /// <summary>Sends what was written. One at a time. The result means nothing.</summary>
    /// <exception cref="IOException">The connection is lost.</exception>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<bool> FlushAsync() => (await Output.FlushAsync().ConfigureAwait(IsSecret)).IsCompleted;

    /// <summary>Ends the connection: what is under way fails soon. Any thread.</summary>
    public void Abort() => _socket.Abort();

    /// <summary>Closes it. Nothing is under way.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_stream != _socket) await _stream.DisposeAsync();
        await _socket.DisposeAsync();
    }

    private async Task<NbdChannel> SecureAsync(Func<SslStream, Task> authenticate)
    {
        // What came in the clear after the request for TLS could be anybody's.
        if (_input.TryRead(out ReadResult early) && early.Buffer.Length > 0)
            throw new NbdException("bytes came in the clear where TLS was to begin");
        SslStream tls = new(_socket, leaveInnerStreamOpen: true);
        try
        {
            await authenticate(tls);
            return new NbdChannel(_socket, tls);
        }
        catch (AuthenticationException failure)
        {
            throw new NbdException($"TLS: {failure.InnerException?.Message ?? failure.Message}", failure);
        }
    }
}
