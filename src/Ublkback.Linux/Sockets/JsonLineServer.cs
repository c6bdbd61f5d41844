using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Ublkback.Linux.Sockets;

/// <summary>
/// Answers requests on a local socket, one to a connection. Only root, or the user of this process, may connect. A
/// malformed request closes its connection. Any thread.
/// </summary>
public sealed class JsonLineServer<TRequest, TReply> : IDisposable
{
    private readonly LineServer _server;

    /// <summary>Listens from now on, in place of an earlier socket at the path.</summary>
    /// <exception cref="SocketException">The socket cannot be created.</exception>
    public JsonLineServer(
        string path, JsonTypeInfo<TRequest> requests, JsonTypeInfo<TReply> replies,
        Func<TRequest, Task<TReply>> answer) =>
        _server = new LineServer(path, async line => JsonSerializer.SerializeToUtf8Bytes(
            await answer(JsonLine.Parse(line, requests)).ConfigureAwait(false), replies));

    /// <inheritdoc/>
    public void Dispose() => _server.Dispose();
}
