using System.Net.Sockets;
using System.Text.Json;
using Ublkback.Block;
using Ublkback.Hosting;
using Ublkback.Linux.Sockets;

namespace Ublkback.Control;

/// <summary>Sends requests to the daemon.</summary>
internal static class ControlClient
{
    /// <summary>Sends a request and awaits the reply.</summary>
    /// <exception cref="NoDaemonException">No daemon answers on the socket.</exception>
    /// <exception cref="LostDaemonException">The connection closed before the reply was complete.</exception>
    /// <exception cref="UserException">The daemon did not carry it out; the message says why.</exception>
    public static async Task<TReply> AskAsync<TRequest, TReply>(
        HostEnvironment host, ControlCommand<TRequest, TReply> command, TRequest request)
        where TRequest : ControlRequest
        where TReply : ControlReply
    {
        try
        {
            byte[] reply = await LineClient.AskAsync(
                host.ControlSocket, JsonSerializer.SerializeToUtf8Bytes(request, command.Requests),
                ControlProtocol.Messages.MaxReplyLength).ConfigureAwait(false);
            return ControlProtocol.Messages.ReadReply(reply, command.Name, command.Replies);
        }
        catch (SocketException failure)
        {
            throw failure.SocketErrorCode == SocketError.AccessDenied
                ? new NoDaemonException(
                    $"this user may not connect to {host.ControlSocket}", "run the command as root",
                    isAbsent: false, failure)
                : new NoDaemonException(
                    $"the daemon is not running (no process answers on {host.ControlSocket})",
                    "start it with 'systemctl start ublkback'", isAbsent: true, failure);
        }
        catch (IOException failure)
        {
            throw new LostDaemonException($"the daemon closed the connection: {failure.Message}", failure);
        }
    }
}
