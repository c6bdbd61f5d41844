using System.Net.Sockets;
using Ublkback.Backend.Report;
using Ublkback.Backend.Xenbus;
using Ublkback.Linux.Workers;
using Ublkback.Nbd.Server;
using Ublkback.XenStore;

namespace Ublkback.Backend.Connections;

/// <summary>
/// An NBD export of an image for QEMU, which emulates a disk for an HVM guest until the guest's own drivers run. It
/// listens at a socket of the vbd, which only root can use. QEMU and the frontend share one image, so each reads the
/// other's writes.
/// </summary>
/// <remarks>
/// Any thread. Invariant: the export holds a reference on its image from <see cref="OpenAsync"/> until it is disposed.
/// </remarks>
internal sealed class QemuExport : IAsyncDisposable
{
    private const int MaxClients = 4; // QEMU probes the disk with a connection of its own first

    private readonly NbdServer _server;
    private readonly SharedImage _image;

    private QemuExport(string socket, NbdServer server, SharedImage image)
    {
        Socket = socket;
        _server = server;
        _image = image;
    }

    /// <summary>The path of the socket.</summary>
    public string Socket { get; }

    /// <summary>
    /// Opens the export if the guest is an HVM guest, which libxl's nodes say. Returns null if it is not, or if opening
    /// fails, which is logged.
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
            File.Delete(socket); // left by a crashed daemon
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

    /// <summary>Closes the export. QEMU is disconnected when its requests in flight have completed.</summary>
    public async ValueTask DisposeAsync()
    {
        await _server.DisposeAsync().ConfigureAwait(false);
        _image.DropReference();
    }
}
