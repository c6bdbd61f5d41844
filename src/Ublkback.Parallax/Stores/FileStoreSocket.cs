using System.Globalization;
using System.Net.Sockets;
using Mono.Unix.Native;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Sockets;
using Ublkback.Parallax.Requests;

namespace Ublkback.Parallax.Stores;

/// <summary>A local socket in a store's folder for each VDI that a process has open for writing. Any thread.</summary>
internal sealed class FileStoreSocket : IDisposable
{
    private readonly FileDescriptor _folder;
    private readonly JsonLineServer<VdiRequest, VdiReply> _server;

    /// <summary>Answers from now on.</summary>
    public FileStoreSocket(string folder, uint vdi, Func<VdiRequest, Task<VdiReply>> answer)
    {
        _folder = Open(folder);
        _server = new JsonLineServer<VdiRequest, VdiReply>(
            PathOf(_folder, vdi), VdiJson.Default.VdiRequest, VdiJson.Default.VdiReply, answer);
    }

    /// <summary>Asks at the door of a VDI; null when nobody answers there.</summary>
    /// <exception cref="TargetException">The answer was not to be had.</exception>
    public static async Task<VdiReply?> TryAskAsync(string folder, uint vdi, VdiRequest request)
    {
        using FileDescriptor directory = Open(folder);
        try
        {
            return await JsonLineClient.AskAsync(
                PathOf(directory, vdi), request, VdiJson.Default.VdiRequest, VdiJson.Default.VdiReply)
                    .ConfigureAwait(false);
        }
        catch (SocketException)
        {
            return null; // nobody listens
        }
        catch (IOException failure)
        {
            throw new TargetException(
                $"who has the VDI open broke off: {failure.Message}; look whether it was done, and try again", failure);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _server.Dispose();
        _folder.Dispose();
    }

    // The path of a socket may have 108 bytes only.
    private static FileDescriptor Open(string folder) =>
        FileDescriptor.Open(folder, OpenFlags.O_RDONLY | OpenFlags.O_DIRECTORY);

    private static string PathOf(FileDescriptor folder, uint vdi) =>
        string.Create(CultureInfo.InvariantCulture, $"{folder.DevicePath}/{vdi:x6}");
}
