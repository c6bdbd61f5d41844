using System.Net.Sockets;
using System.Text.Json;
using Ublkback.Hosting;
using Ublkback.Linux.Sockets;

namespace Ublkback.Control;

/// <summary>Sends requests to the daemon.</summary>
internal static class ControlClient
{
    /// <summary>Sends a request and awaits the reply.</summary>
    /// <exception cref="NoDaemonException">No daemon answers on the socket.</exception>
    /// <exception cref="LostDaemonException">The connection closed before the reply was complete.</exception>
    /// <exception cref="RefusedRequestException">The daemon did not carry it out; the message says why.</exception>
    public static async Task<TReply> AskAsync<TRequest, TReply>(
        HostEnvironment host, ControlCommand<TRequest, TReply> command, TRequest request)
        where TRequest : ControlRequest
        where TReply : ControlReply
    {
        try
        {
            JsonElement reply = await JsonLineClient.AskAsync(
                host.ControlSocket, request, command.Requests, ReplyJson.Default.JsonElement).ConfigureAwait(false);
            return Read(reply, command);
        }
        catch (SocketException failure)
        {
            throw failure.SocketErrorCode == SocketError.AccessDenied
                ? new NoDaemonException(
                    $"this user may not connect to {host.ControlSocket}", "run the command as root", failure)
                : new NoDaemonException(
                    $"the daemon is not running (no process answers on {host.ControlSocket})",
                    "start it with 'systemctl start ublkback'", failure);
        }
        catch (IOException failure)
        {
            throw new LostDaemonException($"the daemon closed the connection: {failure.Message}", failure);
        }
    }

    // An error is understood in any version: it says itself which versions do not fit.
    private static TReply Read<TRequest, TReply>(JsonElement reply, ControlCommand<TRequest, TReply> command)
        where TRequest : ControlRequest
        where TReply : ControlReply
    {
        if (reply.ValueKind != JsonValueKind.Object)
            throw new RefusedRequestException("the daemon's reply is not a JSON object", ControlProtocol.Remedy);
        if (reply.TryGetProperty("error", out JsonElement error) && error.ValueKind == JsonValueKind.String)
            throw new RefusedRequestException(error.GetString()!);
        string version = reply.TryGetProperty("version", out JsonElement given) ? given.GetRawText() : "0";
        if (version != $"{ControlProtocol.Version}")
            throw new RefusedRequestException(
                $"the daemon speaks version {version} of the control protocol and this program version "
                + $"{ControlProtocol.Version}", ControlProtocol.Remedy);
        try
        {
            return reply.Deserialize(command.Replies) ?? throw new JsonException();
        }
        catch (JsonException failure)
        {
            throw new RefusedRequestException(
                $"the daemon's reply to '{command.Name}' has an unexpected field {failure.Path}",
                ControlProtocol.Remedy, failure);
        }
    }
}
