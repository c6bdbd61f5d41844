using System.IO.Pipelines;
using System.Net.Sockets;

namespace Ublkback.Linux.Sockets;

/// <summary>
/// Answers messages on a local socket, one line to a connection. Only root, or the user of this process, may connect.
/// Any thread.
/// </summary>
public sealed class LineServer : IDisposable
{
    private static readonly TimeSpan AcceptDelay = TimeSpan.FromMilliseconds(100);

    private readonly string _path;
    private readonly int _maxLength;
    private readonly Func<byte[], Task<byte[]>> _answer;
    private readonly Func<InvalidDataException, byte[]> _refuse;
    private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private volatile bool _isClosed;

    /// <summary>Listens from now on, in place of an earlier socket at the path.</summary>
    /// <param name="path">Where to listen.</param>
    /// <param name="maxLength">The longest message, in bytes.</param>
    /// <param name="answer">Returns the reply to a message. Must not throw.</param>
    /// <param name="refuse">Returns the reply when no complete message came.</param>
    /// <exception cref="SocketException">The socket cannot be created.</exception>
    public LineServer(
        string path, int maxLength, Func<byte[], Task<byte[]>> answer, Func<InvalidDataException, byte[]> refuse)
    {
        _path = path;
        _maxLength = maxLength;
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
        catch (IOException)
        {
            // The client is gone.
        }
    }

    private async Task<byte[]> ReplyAsync(PipeReader reader)
    {
        byte[] message;
        try
        {
            message = await Line.ReadAsync(reader, _maxLength).ConfigureAwait(false);
        }
        catch (InvalidDataException failure)
        {
            return _refuse(failure);
        }

        return await _answer(message).ConfigureAwait(false);
    }
}
