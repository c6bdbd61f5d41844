using System.Net.Sockets;
using Ublkback.Backend.Report;
using Ublkback.Backend.Xenbus;
using Ublkback.Linux.Workers;
using Ublkback.Nbd.Server;
using Ublkback.XenStore;

namespace Ublkback.Backend.Connections;

/// <summary>
/// The door by which QEMU comes to the disk of an HVM guest, which it shows to the guest until that has drivers of its
/// own: an NBD server for this host's root, at a socket of the vbd's own. Both see one image, so what one writes the
/// other reads.
/// </summary>
internal sealed class QemuExport : IAsyncDisposable
{
    private const int MaxClients = 4; // QEMU is one, and may look at it before it stays

    private readonly NbdServer _server;
    private readonly SharedImage _image;

    private QemuExport(string socket, NbdServer server, SharedImage image)
    {
        Socket = socket;
        _server = server;
        _image = image;
    }

    /// <summary>Its path.</summary>
    public string Socket { get; }

    /// <summary>
    /// Opens the door if the guest may need one: libxl says of what type it is. Null when it does not, or that fails.
    /// </summary>
    public static async Task<QemuExport?> OpenAsync(
        BackendServices services, VbdAddress address, SharedImage image, Worker worker, VbdLog log)
    {
        string socket = Path.Combine(services.QemuFolder, $"{address.KernelName}.sock");
        try
        {
            if (await services.Store.ReadAsync($"/libxl/{address.Domid}/type").ConfigureAwait(false) != "hvm")
                return null;
            Directory.CreateDirectory(services.QemuFolder);
            File.Delete(socket); // of a daemon that was killed
            NbdServer server = new(
                new NbdServerOptions(new UnixDomainSocketEndPoint(socket), MaxClients: MaxClients), image.Image,
                [worker], log.EmulatorToldOf);
            image.AddReference();
            return new QemuExport(socket, server, image);
        }
        catch (Exception failure)
            when (failure is SocketException or IOException or UnauthorizedAccessException
                or ArgumentOutOfRangeException or XenStoreException)
        {
            log.EmulatorShutOut(failure.Message);
            return null;
        }
    }

    /// <summary>Shuts it: QEMU is cut off when what it has asked is done.</summary>
    public async ValueTask DisposeAsync()
    {
        await _server.DisposeAsync().ConfigureAwait(false);
        _image.DropReference();
    }
}
