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
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(20);

    private readonly FileDescriptor _folder;
    private readonly LineServer _server;

    /// <summary>Listens from now on.</summary>
    public FileStoreSocket(string folder, uint vdi, MessageDispatcher requests)
    {
        _folder = Open(folder);
        _server = requests.Listen(PathOf(_folder, vdi));
    }

    /// <summary>
    /// Sends a request and returns the reply; null if no process listens on the VDI's socket. Sends it again if the
    /// process closed the VDI before it carried the request out.
    /// </summary>
    /// <exception cref="TargetException">The connection closed before the reply was complete.</exception>
    public static async Task<byte[]?> TryAskAsync(string folder, uint vdi, byte[] request)
    {
        using FileDescriptor directory = Open(folder);
        string path = PathOf(directory, vdi);
        for (long began = Environment.TickCount64; ;)
        {
            (ulong, ulong)? socket = Identify(path);
            try
            {
                return await TryAskOnceAsync(path, request).ConfigureAwait(false);
            }
            catch (IOException) when (
                Identify(path) != socket && Environment.TickCount64 - began < Patience.TotalMilliseconds)
            {
                // A process that is killed leaves its socket's file. One that closes the VDI removes it, and nothing is
                // carried out then without a reply.
                await Task.Delay(Pause).ConfigureAwait(false);
            }
            catch (IOException failure)
            {
                throw new TargetException(
                    $"no complete reply came from the process that holds the VDI: {failure.Message}",
                    "check whether the command was carried out, and try again", failure);
            }
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

    private static async Task<byte[]?> TryAskOnceAsync(string path, byte[] request)
    {
        try
        {
            return await LineClient.AskAsync(path, request, VdiProtocol.Messages.MaxReplyLength)
                .ConfigureAwait(false);
        }
        catch (SocketException failure) when (failure.SocketErrorCode == SocketError.AccessDenied)
        {
            throw new TargetException(
                $"this user may not connect to the process that holds the VDI ({failure.Message})",
                "run the command as root, or as the user of that process", failure);
        }
        catch (SocketException)
        {
            return null; // no process listens
        }
    }

    private static (ulong Device, ulong Inode)? Identify(string path) =>
        Syscall.stat(path, out Stat status) == 0 ? (status.st_dev, status.st_ino) : null;

    // The path of a socket has at most 108 bytes.
    private static FileDescriptor Open(string folder) =>
        FileDescriptor.Open(folder, OpenFlags.O_RDONLY | OpenFlags.O_DIRECTORY);

    private static string PathOf(FileDescriptor folder, uint vdi) =>
        string.Create(CultureInfo.InvariantCulture, $"{folder.DevicePath}/{vdi:x6}");
}
