using System.IO.Pipelines;
using System.Net.Sockets;
using System.Text.Json;

namespace Ublkback.Control;

/// <summary>The daemon's end of the control socket. Only root (or who started the daemon) may connect.</summary>
internal sealed class ControlServer : IDisposable
{
    private readonly string _path;
    private readonly Func<ControlRequest, Task<ControlReply>> _answer;
    private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);

    public ControlServer(string path, Func<ControlRequest, Task<ControlReply>> answer)
    {
        _path = path;
        _answer = answer;
        File.Delete(path);
        _socket.Bind(new UnixDomainSocketEndPoint(path));
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        _socket.Listen();
        _ = AcceptAsync();
    }

    public void Dispose()
    {
        _socket.Dispose();
        File.Delete(_path);
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true) _ = ServeAsync(await _socket.AcceptAsync().ConfigureAwait(false));
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            // The daemon ends.
        }
    }

    private async Task ServeAsync(Socket client)
    {
        using NetworkStream stream = new(client, ownsSocket: true);
        try
        {
            ControlRequest request = await ControlLine.ReadAsync(
                PipeReader.Create(stream), ControlJson.Default.ControlRequest).ConfigureAwait(false);
            ControlReply reply = await _answer(request).ConfigureAwait(false);
            await ControlLine.WriteAsync(PipeWriter.Create(stream), reply, ControlJson.Default.ControlReply).ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is IOException or InvalidDataException or JsonException)
        {
            // The client talks nonsense or is gone: nobody to tell.
        }
    }
}
