using System.IO.Pipelines;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Ublkback.Linux.Sockets;

/// <summary>Asks a <see cref="JsonLineServer{TRequest, TReply}"/>. Any thread.</summary>
public static class JsonLineClient
{
    /// <summary>Sends a request and awaits the reply.</summary>
    /// <exception cref="SocketException">Nobody listens at the path, or this user may not ask there.</exception>
    /// <exception cref="IOException">Who listens broke off.</exception>
    public static async Task<TReply> AskAsync<TRequest, TReply>(
        string path, TRequest request, JsonTypeInfo<TRequest> requests, JsonTypeInfo<TReply> replies)
    {
        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(path)).ConfigureAwait(false);
        try
        {
            await using NetworkStream stream = new(socket);
            await JsonLine.WriteAsync(PipeWriter.Create(stream), request, requests).ConfigureAwait(false);
            return await JsonLine.ReadAsync(PipeReader.Create(stream), replies).ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is InvalidDataException or JsonException)
        {
            throw new IOException(failure.Message, failure);
        }
    }
}
