using System.IO.Pipelines;
using System.Net.Sockets;
using System.Text.Json;
using Ublkback.Block;
using Ublkback.Linux;

namespace Ublkback.Parallax;

/// <summary>
/// A local socket in the store by which commands ask the process that has a VDI open for writing to do something to it. Any thread.
/// </summary>
internal sealed class VdiDoor : IDisposable
{
    private readonly FileDescriptor _folder;
    private readonly JsonLineServer<VdiRequest, VdiReply> _server;
    private readonly VdiTasks _tasks;
    private readonly VdiImage _image;

    public VdiDoor(FileStore store, uint vdi, VdiImage image, Action<string> warn)
    {
        _image = image;
        _tasks = new VdiTasks(store, image, warn);
        _folder = OpenFolder(store);
        _server = new JsonLineServer<VdiRequest, VdiReply>(PathOf(_folder, store, vdi), VdiJson.Default.VdiRequest, VdiJson.Default.VdiReply, AnswerAsync);
    }

    /// <summary>Asks who has a VDI open; null when nobody has.</summary>
    /// <exception cref="TargetException">It could not be done; the message says why.</exception>
    public static async Task<VdiReply?> TryAskAsync(FileStore store, uint vdi, VdiRequest request)
    {
        using FileDescriptor folder = OpenFolder(store);
        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(PathOf(folder, store, vdi))).ConfigureAwait(false);
        }
        catch (SocketException)
        {
            return null; // nobody listens
        }

        try
        {
            await using NetworkStream stream = new(socket);
            await JsonLine.WriteAsync(PipeWriter.Create(stream), request, VdiJson.Default.VdiRequest).ConfigureAwait(false);
            VdiReply reply = await JsonLine.ReadAsync(PipeReader.Create(stream), VdiJson.Default.VdiReply).ConfigureAwait(false);
            return reply.Error is null ? reply : throw new TargetException(reply.Error);
        }
        catch (Exception failure) when (failure is IOException or InvalidDataException or JsonException)
        {
            throw new TargetException($"who has the VDI open broke off: {failure.Message}; look whether it was done, and try again", failure);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _server.Dispose();
        _folder.Dispose();
    }

    private async Task<VdiReply> AnswerAsync(VdiRequest request)
    {
        try
        {
            return await _image.HoldAsync(() => _tasks.RunAsync(request)).ConfigureAwait(false);
        }
        catch (TargetException failure)
        {
            return new VdiReply(failure.Message);
        }
        catch (OperationCanceledException)
        {
            return new VdiReply("the VDI is being closed: try again");
        }
    }

    // The path of a socket may have 108 bytes only.
    private static FileDescriptor OpenFolder(FileStore store) =>
        FileDescriptor.Open(store.DoorFolder, Mono.Unix.Native.OpenFlags.O_RDONLY | Mono.Unix.Native.OpenFlags.O_DIRECTORY);

    private static string PathOf(FileDescriptor folder, FileStore store, uint vdi) => $"{folder.DevicePath}/{Path.GetFileName(store.PathOf(vdi))}";
}
