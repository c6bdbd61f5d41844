using System.IO.Pipelines;
using System.Net.Sockets;
using System.Text.Json;

namespace Ublkback.Linux.Sockets;

/// <summary>
/// Answers messages on a local socket, one line to a connection. Only root, or the user of this process, may connect.
/// Any thread.
/// </summary>
public sealed class LineServer : IDisposable
{
    private static readonly TimeSpan AcceptDelay = TimeSpan.FromMilliseconds(100);

    private readonly string _path;
    private readonly Func<byte[], Task<byte[]>> _answer;
    private readonly Func<InvalidDataException, byte[]>? _refuse;
    private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private volatile bool _isClosed;

    /// <summary>Listens from now on, in place of an earlier socket at the path.</summary>
    /// <param name="path">Where to listen.</param>
    /// <param name="answer">
    /// Returns the reply to a message. An <see cref="IOException"/>, <see cref="InvalidDataException"/> or
    /// <see cref="JsonException"/> of it closes the connection without a reply.
    /// </param>
    /// <param name="refuse">
    /// Returns the reply when no complete message came; if null, the connection closes without a reply.
    /// </param>
    /// <exception cref="SocketException">The socket cannot be created.</exception>
    public LineServer(
        string path, Func<byte[], Task<byte[]>> answer, Func<InvalidDataException, byte[]>? refuse = null)
    {
        _path = path;
        _answer = answer;
        _refuse = refuse;
        File.Delete(path);
        _socket.Bind(new UnixDomainSocketEndPoint(path));
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        _socket.Listen();
        _ = AcceptAsync();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _isClosed = true;
        _socket.Dispose();
        File.Delete(_path);
    }

    private async Task AcceptAsync()
    {
        while (!_isClosed)
        {
            try
            {
                _ = ServeAsync(await _socket.AcceptAsync().ConfigureAwait(false));
            }
            catch (SocketException) when (!_isClosed)
            {
                // The process may have no free descriptor. A client must not lose the server by that.
                await Task.Delay(AcceptDelay).ConfigureAwait(false);
            }
            catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
            {
                return;
            }
        }
    }

    private async Task ServeAsync(Socket client)
    {
        using NetworkStream stream = new(client, ownsSocket: true);
        try
        {
            byte[] reply = await ReplyAsync(PipeReader.Create(stream)).ConfigureAwait(false);
            await Line.WriteAsync(PipeWriter.Create(stream), reply).ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is IOException or InvalidDataException or JsonException)
        {
            // The client is gone, or gets no reply.
        }
    }

    private async Task<byte[]> ReplyAsync(PipeReader reader)
    {
        byte[] message;
        try
        {
            message = await Line.ReadAsync(reader).ConfigureAwait(false);
        }
        catch (InvalidDataException failure) when (_refuse is not null)
        {
            return _refuse(failure);
        }

        return await _answer(message).ConfigureAwait(false);
    }
}
