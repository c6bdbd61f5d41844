using System.Net.Sockets;
using System.Text;

namespace Ublkback.Service;

/// <summary>Tells systemd the state of the service, as sd_notify(3) does.</summary>
internal static class SystemdNotification
{
    /// <summary>Tells systemd that the service is ready; does nothing without systemd.</summary>
    public static Task SendReadyAsync() => SendAsync("READY=1");

    // A datagram to the socket that systemd names.
    private static async Task SendAsync(string state)
    {
        if (Environment.GetEnvironmentVariable("NOTIFY_SOCKET") is not { Length: > 0 } path) return;
        using Socket socket = new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        string address = path.StartsWith('@') ? '\0' + path[1..] : path;
        await socket.SendToAsync(Encoding.UTF8.GetBytes(state), new UnixDomainSocketEndPoint(address))
            .ConfigureAwait(false);
    }
}
