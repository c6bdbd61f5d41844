using System.Collections.Concurrent;
using System.IO.Pipelines;
using System.Net.Sockets;
using Mono.Unix.Native;

namespace Ublkback.Linux.Sockets;

/// <summary>
/// Answers messages on a local socket, one line to a connection. Only root, or the user of this process, may connect.
/// Any thread.
/// </summary>
/// <remarks>
/// Each connection gets a reply, also when the server ends: then it says that nothing was carried out. So a connection
/// that closes without a reply is one of a process that was killed.
/// </remarks>
public sealed class LineServer : IAsyncDisposable, IDisposable
{
    private static readonly TimeSpan AcceptDelay = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan ReplyTime = TimeSpan.FromSeconds(5); // for clients to take their replies

    private readonly string _path;
    private readonly int _maxLength;
    private readonly Func<byte[], Task<byte[]>> _answer;
    private readonly Func<InvalidDataException, byte[]> _refuse;
    private readonly byte[] _ending;
    private readonly Task _accepting;
    private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly CancellationTokenSource _closing = new();
    private readonly ConcurrentDictionary<Task, bool> _connections = new();

    /// <summary>Listens from now on, in place of an earlier socket at the path.</summary>
    /// <param name="path">Where to listen.</param>
    /// <param name="maxLength">The longest message, in bytes.</param>
    /// <param name="answer">Returns the reply to a message. Must not throw.</param>
    /// <param name="refuse">Returns the reply when no complete message came.</param>
    /// <param name="ending">The reply to messages that come when the server ends.</param>
    /// <exception cref="SocketException">The socket cannot be created.</exception>
    public LineServer(
        string path, int maxLength, Func<byte[], Task<byte[]>> answer, Func<InvalidDataException, byte[]> refuse,
        byte[] ending)
    {
        _path = path;
        _maxLength = maxLength;
        _answer = answer;
        _refuse = refuse;
        _ending = ending;
        File.Delete(path);
        _socket.Bind(new UnixDomainSocketEndPoint(path));
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        _socket.Listen();
        _accepting = AcceptAsync();
    }

    /// <summary>
    /// Takes no more messages. What is being answered goes on: <see cref="DisposeAsync"/> waits for it.
    /// </summary>
    public void Dispose()
    {
        if (_closing.IsCancellationRequested) return;
        File.Delete(_path);
        _closing.Cancel();
        // Nobody connects any more. Those who have are accepted, and get a reply.
        _socket.Shutdown(SocketShutdown.Receive);
        int listening = (int)_socket.Handle;
        while (Syscall.accept4(listening, null, UnixSocketFlags.SOCK_CLOEXEC) is >= 0 and int client)
            Serve(new Socket(new SafeSocketHandle(client, ownsHandle: true)));
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
            await _accepting.WaitAsync(ReplyTime).ConfigureAwait(false);
            await Task.WhenAll(_connections.Keys).WaitAsync(ReplyTime).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            // A client does not read its reply.
        }
    }

    private async Task AcceptAsync()
    {
        while (true)
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
            message = await Line.ReadAsync(reader, _maxLength, _closing.Token).ConfigureAwait(false);
        }
        catch (InvalidDataException failure)
        {
            return _refuse(failure);
        }
        catch (OperationCanceledException)
        {
            return _ending; // the message has not come before the end
        }

        return _closing.IsCancellationRequested ? _ending : await _answer(message).ConfigureAwait(false);
    }
}
