using System.IO.Pipelines;
using System.Net.Sockets;

namespace Ublkback.Linux.Sockets;

/// <summary>Sends messages to a <see cref="LineServer"/>. Any thread.</summary>
public static class LineClient
{
    /// <summary>Sends a message and returns the reply, both without their newlines.</summary>
    /// <param name="path">Where the server listens.</param>
    /// <param name="message">The message.</param>
    /// <param name="maxLength">The longest reply, in bytes.</param>
    /// <exception cref="SocketException">No process listens at the path, or this user may not connect.</exception>
    /// <exception cref="IOException">
    /// The connection closed before the reply was complete, or the reply is too long.
    /// </exception>
    public static async Task<byte[]> AskAsync(string path, byte[] message, int maxLength)
    {
        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(path)).ConfigureAwait(false);
        try
        {
            await using NetworkStream stream = new(socket);
            await TryWriteAsync(stream, message).ConfigureAwait(false);
            return await Line.ReadAsync(PipeReader.Create(stream), maxLength).ConfigureAwait(false);
        }
        catch (InvalidDataException failure)
        {
            throw new IOException(failure.Message, failure);
        }
    }

    // A server that ends has replied already, and reads no more.
    private static async Task TryWriteAsync(NetworkStream stream, byte[] message)
    {
        try
        {
            await Line.WriteAsync(PipeWriter.Create(stream), message).ConfigureAwait(false);
        }
        catch (IOException)
        {
            // Without a reply, reading fails too.
        }
    }
}
