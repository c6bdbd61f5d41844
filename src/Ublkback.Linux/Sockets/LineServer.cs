using System.Collections.Concurrent;
using System.IO.Pipelines;
using System.Net.Sockets;

namespace Ublkback.Linux.Sockets;

/// <summary>
/// Answers messages on a local socket, one line to a connection. Only root, or the user of this process, may connect.
/// Any thread.
/// </summary>
/// <remarks>
/// When it ends, it removes the socket's file first, then closes connections whose messages it has not begun to answer.
/// So a connection that closes without a reply, while that file is gone, carried nothing out.
/// </remarks>
public sealed class LineServer : IAsyncDisposable, IDisposable
{
    private static readonly TimeSpan AcceptDelay = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan ReplyTime = TimeSpan.FromSeconds(5); // for clients to take their replies

    private readonly string _path;
    private readonly int _maxLength;
    private readonly Func<byte[], Task<byte[]?>> _answer;
    private readonly Func<InvalidDataException, byte[]> _refuse;
    private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly CancellationTokenSource _closing = new();
    private readonly ConcurrentDictionary<Task, bool> _connections = new();

    /// <summary>Listens from now on, in place of an earlier socket at the path.</summary>
    /// <param name="path">Where to listen.</param>
    /// <param name="maxLength">The longest message, in bytes.</param>
    /// <param name="answer">
    /// Returns the reply to a message; null if nothing was carried out since this process ends. Must not throw.
    /// </param>
    /// <param name="refuse">Returns the reply when no complete message came.</param>
    /// <exception cref="SocketException">The socket cannot be created.</exception>
    public LineServer(
        string path, int maxLength, Func<byte[], Task<byte[]?>> answer, Func<InvalidDataException, byte[]> refuse)
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

    /// <summary>
    /// Takes no more messages. What is being answered goes on: <see cref="DisposeAsync"/> waits for it.
    /// </summary>
    public void Dispose()
    {
        if (_closing.IsCancellationRequested) return;
        File.Delete(_path);
        _closing.Cancel();
        _socket.Dispose();
    }

    /// <summary>
    /// Takes no more messages, and waits until the replies are sent to those that are being answered.
    /// </summary>
    public async ValueTask DisposeAsync()
    {
        Dispose();
        try
        {
            await Task.WhenAll(_connections.Keys).WaitAsync(ReplyTime).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            // A client does not read its reply.
        }
    }

    private async Task AcceptAsync()
    {
        while (!_closing.IsCancellationRequested)
        {
            try
            {
                Serve(await _socket.AcceptAsync().ConfigureAwait(false));
            }
            catch (SocketException) when (!_closing.IsCancellationRequested)
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

    private void Serve(Socket client)
    {
        Task serving = ServeAsync(client);
        _connections[serving] = true;
        _ = serving.ContinueWith(
            ended => _connections.TryRemove(ended, out _), CancellationToken.None, TaskContinuationOptions.None,
            TaskScheduler.Default);
    }

    private async Task ServeAsync(Socket client)
    {
        using NetworkStream stream = new(client, ownsSocket: true);
        try
        {
            byte[]? reply = await ReplyAsync(PipeReader.Create(stream)).ConfigureAwait(false);
            if (reply is not null) await Line.WriteAsync(PipeWriter.Create(stream), reply).ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is IOException or OperationCanceledException)
        {
            // The client is gone, or its message has not come before the end.
        }
    }

    private async Task<byte[]?> ReplyAsync(PipeReader reader)
    {
        byte[] message;
        try
        {
            message = await Line.ReadAsync(reader, _maxLength, _closing.Token).ConfigureAwait(false);
        }
        catch (InvalidDataException failure)
        {
            return _refuse(failure);
        }

        return _closing.IsCancellationRequested ? null : await _answer(message).ConfigureAwait(false);
    }
}
