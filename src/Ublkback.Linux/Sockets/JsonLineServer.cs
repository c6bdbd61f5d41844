using System.IO.Pipelines;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Ublkback.Linux.Sockets;

/// <summary>
/// Answers requests on a local socket, one to a connection. Only root (or who started this process) may connect. Any
/// thread.
/// </summary>
public sealed class JsonLineServer<TRequest, TReply> : IDisposable
{
    private readonly string _path;
    private readonly JsonTypeInfo<TRequest> _requests;
    private readonly JsonTypeInfo<TReply> _replies;
    private readonly Func<TRequest, Task<TReply>> _answer;
    private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);

    /// <summary>Listens from now on, in place of what was there.</summary>
    /// <exception cref="SocketException">The socket cannot be made.</exception>
    public JsonLineServer(
        string path, JsonTypeInfo<TRequest> requests, JsonTypeInfo<TReply> replies, Func<TRequest, Task<TReply>> answer)
    {
        _path = path;
        _requests = requests;
        _replies = replies;
        _answer = answer;
        File.Delete(path);
        _socket.Bind(new UnixDomainSocketEndPoint(path));
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        _socket.Listen();
        _ = AcceptAsync();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _socket.Dispose();
        File.Delete(_path);
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true) _ = ServeAsync(await _socket.AcceptAsync().ConfigureAwait(false));
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            // This end is closed.
        }
    }

    private async Task ServeAsync(Socket client)
    {
        using NetworkStream stream = new(client, ownsSocket: true);
        try
        {
            TRequest request = await JsonLine.ReadAsync(PipeReader.Create(stream), _requests).ConfigureAwait(false);
            TReply reply = await _answer(request).ConfigureAwait(false);
            await JsonLine.WriteAsync(PipeWriter.Create(stream), reply, _replies).ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is IOException or InvalidDataException or JsonException)
        {
            // The client talks nonsense or is gone: nobody to tell.
        }
    }
}
