using System.Net.Sockets;

namespace Ublkback.XenStore;

/// <summary>Where a store is reached.</summary>
/// <param name="Path">A unix socket, or the xenbus device.</param>
public sealed record XenStoreTransport(string Path)
{
    private const string Device = "/dev/xen/xenbus";

    private static readonly string[] Sockets = ["/run/xenstored/socket", "/var/run/xenstored/socket"];

    /// <summary>Whether a lost connection can be made again; the device's cannot be lost.</summary>
    public bool CanReconnect => Path != Device;

    /// <summary>The store of this machine: the daemon's socket in dom0, the device in a driver domain.</summary>
    /// <exception cref="XenStoreException">There is none; the message says what was looked for.</exception>
    public static XenStoreTransport Find()
    {
        string? path = Sockets.Append(Device).FirstOrDefault(File.Exists);
        return path is not null
            ? new XenStoreTransport(path)
            : throw new XenStoreException(
                XenStoreError.Disconnected,
                $"neither {Sockets[0]} nor {Device} exists; is this a Xen host, and is xenstored running?");
    }

    /// <summary>Connects.</summary>
    /// <exception cref="XenStoreException">Nobody answers there, or access is denied.</exception>
    public Stream Open()
    {
        try
        {
            if (!CanReconnect)
            {
                // The device carries one message a call in each direction, so nothing may gather them.
                return new FileStream(Path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite, bufferSize: 0);
            }

            Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            try
            {
                socket.Connect(new UnixDomainSocketEndPoint(Path));
                return new NetworkStream(socket, ownsSocket: true);
            }
            catch
            {
                socket.Dispose();
                throw;
            }
        }
        catch (Exception failure) when (failure is SocketException or IOException or UnauthorizedAccessException)
        {
            throw new XenStoreException(XenStoreError.Disconnected, $"{Path}: {failure.Message}", failure);
        }
    }
}
