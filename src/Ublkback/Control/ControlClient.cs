using System.Net.Sockets;
using Ublkback.Hosting;
using Ublkback.Linux.Sockets;

namespace Ublkback.Control;

/// <summary>Asks the daemon.</summary>
internal static class ControlClient
{
    /// <summary>Sends a request and awaits the reply.</summary>
    /// <exception cref="NoDaemonException">Nobody answers on the socket.</exception>
    /// <exception cref="LostDaemonException">The daemon broke off.</exception>
    public static async Task<ControlReply> AskAsync(HostEnvironment host, ControlRequest request)
    {
        try
        {
            return await JsonLineClient.AskAsync(
                host.ControlSocket, request, ControlJson.Default.ControlRequest,
                ControlJson.Default.ControlReply).ConfigureAwait(false);
        }
        catch (SocketException failure)
        {
            throw new NoDaemonException(failure.SocketErrorCode == SocketError.AccessDenied
                ? $"{host.ControlSocket} may not be used by this user: run the command as root"
                : $"the daemon is not running (nobody answers on {host.ControlSocket}): start it with 'systemctl "
                    + "start ublkback'");
        }
        catch (IOException failure)
        {
            throw new LostDaemonException($"the daemon broke off: {failure.Message}");
        }
    }
}

/// <summary>The daemon has not answered to the end.</summary>
internal sealed class LostDaemonException(string message) : CommandException(message);

/// <summary>There is no daemon to ask; the message says how to mend it.</summary>
internal sealed class NoDaemonException(string message) : Exception(message);
