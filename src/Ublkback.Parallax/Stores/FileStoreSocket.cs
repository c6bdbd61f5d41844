using System.Globalization;
using System.Net.Sockets;
using Mono.Unix.Native;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Messages;
using Ublkback.Linux.Sockets;
using Ublkback.Parallax.Requests;

namespace Ublkback.Parallax.Stores;

/// <summary>The socket of a VDI that this process holds open for writing, in the store's folder. Any thread.</summary>
internal sealed class FileStoreSocket : IAsyncDisposable, IDisposable
{
    private readonly FileDescriptor _folder;
    private readonly LineServer _server;

    /// <summary>Listens from now on.</summary>
    public FileStoreSocket(string folder, uint vdi, MessageDispatcher requests)
    {
        _folder = Open(folder);
        _server = requests.Listen(PathOf(_folder, vdi));
    }

    /// <summary>Sends a request, once.</summary>
    /// <exception cref="TargetException">This user may not connect.</exception>
    public static async Task<VdiDelivery> TryAskAsync(string folder, uint vdi, byte[] request)
    {
        using FileDescriptor directory = Open(folder);
        try
        {
            return VdiDelivery.Replied(await LineClient.AskAsync(
                PathOf(directory, vdi), request, VdiProtocol.Messages.MaxReplyLength).ConfigureAwait(false));
        }
        catch (SocketException failure) when (failure.SocketErrorCode == SocketError.AccessDenied)
        {
            throw new TargetException(
                $"this user may not connect to the process that holds the VDI ({failure.Message})",
                "run the command as root, or as the user of that process", failure);
        }
        catch (SocketException)
        {
            return VdiDelivery.NoHolder; // no process listens
        }
        catch (IOException failure)
        {
            return VdiDelivery.Lost(failure.Message);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _server.Dispose();
        _folder.Dispose();
    }

    /// <summary>Takes no more requests, and waits until the replies are sent to those that are carried out.</summary>
    public async ValueTask DisposeAsync()
    {
        Dispose();
        await _server.DisposeAsync().ConfigureAwait(false);
    }

    // The path of a socket has at most 108 bytes.
    private static FileDescriptor Open(string folder) =>
        FileDescriptor.Open(folder, OpenFlags.O_RDONLY | OpenFlags.O_DIRECTORY);

    private static string PathOf(FileDescriptor folder, uint vdi) =>
        string.Create(CultureInfo.InvariantCulture, $"{folder.DevicePath}/{vdi:x6}");
}
