using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Tests.Nbd;

/// <summary>A client that can be made to say anything.</summary>
internal sealed class RawClient : IDisposable
{
    private static readonly TimeSpan Soon = TimeSpan.FromSeconds(20);

    private readonly NetworkStream _stream;

    private RawClient(Socket socket) => _stream = new NetworkStream(socket, ownsSocket: true);

    public static async Task<RawClient> ConnectAsync(string path)
    {
        Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(path));
        return new RawClient(socket);
    }

    /// <summary>Chooses the disk in the simplest way, with simple replies.</summary>
    public async Task ChooseAsync()
    {
        await GreetAsync();
        await SendOptionAsync(NbdOption.ExportName, []);
        await ReadAsync(10);
    }

    public async Task GreetAsync()
    {
        await ReadAsync(18);
        await SendAsync([0, 0, 0, 3]);
    }

    public Task SendAsync(byte[] bytes) => _stream.WriteAsync(bytes).AsTask();

    public async Task SendOptionAsync(NbdOption option, byte[] data, int? length = null)
    {
        byte[] head = new byte[16];
        Encoding.ASCII.GetBytes("IHAVEOPT", head);
        BinaryPrimitives.WriteUInt32BigEndian(head.AsSpan(8), (uint)option);
        BinaryPrimitives.WriteInt32BigEndian(head.AsSpan(12), length ?? data.Length);
        await SendAsync([.. head, .. data]);
    }

    public async Task<NbdOptionReply> ReadOptionReplyAsync()
    {
        byte[] head = await ReadAsync(20);
        await ReadAsync(BinaryPrimitives.ReadInt32BigEndian(head.AsSpan(16)));
        return (NbdOptionReply)BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(12));
    }

    public Task SendAsync(NbdCommand command, long offset, uint length, byte[]? data = null, ushort flags = 0) =>
        SendAsync([.. Request(command, offset, length, flags), .. data ?? []]);

    public static byte[] Request(NbdCommand command, long offset, uint length, ushort flags = 0)
    {
        byte[] head = new byte[28];
        BinaryPrimitives.WriteUInt32BigEndian(head, 0x25609513);
        BinaryPrimitives.WriteUInt16BigEndian(head.AsSpan(4), flags);
        BinaryPrimitives.WriteUInt16BigEndian(head.AsSpan(6), (ushort)command);
        BinaryPrimitives.WriteInt64BigEndian(head.AsSpan(16), offset);
        BinaryPrimitives.WriteUInt32BigEndian(head.AsSpan(24), length);
        return head;
    }

    /// <summary>The error of a simple reply.</summary>
    public async Task<NbdError> ReadErrorAsync() =>
        (NbdError)BinaryPrimitives.ReadUInt32BigEndian((await ReadAsync(16)).AsSpan(4));

    public async Task<byte[]> ReadAsync(int length)
    {
        byte[] bytes = new byte[length];
        await _stream.ReadExactlyAsync(bytes).AsTask().WaitAsync(Soon);
        return bytes;
    }

    /// <summary>Whether the server has closed the connection, after what it may still say.</summary>
    public async Task<bool> IsCutOffAsync()
    {
        try
        {
            byte[] bytes = new byte[4096];
            while (await _stream.ReadAsync(bytes).AsTask().WaitAsync(Soon) > 0) { }
            return true;
        }
        catch (IOException)
        {
            return true; // reset
        }
    }

    /// <summary>Says that nothing more comes, and takes no answers either.</summary>
    public void CloseHalf() => _stream.Socket.Shutdown(SocketShutdown.Send);

    public void Dispose() => _stream.Dispose();
}
