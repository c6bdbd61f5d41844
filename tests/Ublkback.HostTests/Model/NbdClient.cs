using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;

namespace Ublkback.HostTests.Model;

/// <summary>What became of a request.</summary>
internal enum NbdResult
{
    Done,
    Refused,
    Lost,
}

/// <summary>
/// A client of NBD that shares no code with the server: as little as the model needs. Any thread.
/// </summary>
internal sealed class NbdClient : IDisposable
{
    private const ulong OptionMagic = 0x49484156454F5054;
    private const uint RequestMagic = 0x25609513;
    private const int ReadCommand = 0;

    private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly NetworkStream _stream;
    private readonly SemaphoreSlim _sending = new(1);
    private readonly Lock _gate = new();
    private readonly Dictionary<ulong, (TaskCompletionSource<NbdResult> Answer, Memory<byte> Read)> _inFlight = [];
    private ulong _last;
    private bool _isLost;

    private NbdClient(string path)
    {
        _socket.Connect(new UnixDomainSocketEndPoint(path));
        _stream = new NetworkStream(_socket, ownsSocket: true);
    }

    /// <summary>Size of the export in sectors.</summary>
    public int Sectors { get; private set; }

    public static async Task<NbdClient> ConnectAsync(string path)
    {
        NbdClient client = new(path);
        await client.NegotiateAsync();
        _ = Task.Run(client.ReceiveAsync);
        return client;
    }

    public Task<NbdResult> ReadAsync(int sector, Memory<byte> data) =>
        SendAsync(ReadCommand, sector, data.Length, default, data);

    public Task<NbdResult> WriteAsync(int sector, ReadOnlyMemory<byte> data) =>
        SendAsync(1, sector, data.Length, data, default);

    public Task<NbdResult> FlushAsync() => SendAsync(3, 0, 0, default, default);

    public Task<NbdResult> DiscardAsync(int sector, int count) =>
        SendAsync(4, sector, count * SectorPattern.Size, default, default);

    public Task<NbdResult> WriteZerosAsync(int sector, int count) =>
        SendAsync(6, sector, count * SectorPattern.Size, default, default);

    public void Dispose() => _stream.Dispose();

    private async Task NegotiateAsync()
    {
        await ReadAsync(18); // two magic numbers and the server's flags
        byte[] option = new byte[4 + 16 + 6];
        BinaryPrimitives.WriteUInt32BigEndian(option, 3); // fixed, no zeros
        BinaryPrimitives.WriteUInt64BigEndian(option.AsSpan(4), OptionMagic);
        BinaryPrimitives.WriteUInt32BigEndian(option.AsSpan(12), 7); // GO, of the export without a name
        BinaryPrimitives.WriteUInt32BigEndian(option.AsSpan(16), 6);
        await _stream.WriteAsync(option);
        while (true)
        {
            byte[] head = await ReadAsync(20);
            uint kind = BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(12));
            byte[] data = await ReadAsync((int)BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(16)));
            if (kind == 1) return;
            if (kind != 3) throw new IOException($"the export was refused: {Encoding.UTF8.GetString(data)}");
            if (BinaryPrimitives.ReadUInt16BigEndian(data) == 0)
                Sectors = (int)(BinaryPrimitives.ReadInt64BigEndian(data.AsSpan(2)) / SectorPattern.Size);
        }
    }

    private async Task<NbdResult> SendAsync(
        ushort command, int sector, int length, ReadOnlyMemory<byte> data, Memory<byte> read)
    {
        TaskCompletionSource<NbdResult> answer = new(TaskCreationOptions.RunContinuationsAsynchronously);
        byte[] message = new byte[28 + data.Length];
        data.CopyTo(message.AsMemory(28));
        BinaryPrimitives.WriteUInt32BigEndian(message, RequestMagic);
        BinaryPrimitives.WriteUInt16BigEndian(message.AsSpan(6), command);
        BinaryPrimitives.WriteInt64BigEndian(message.AsSpan(16), (long)sector * SectorPattern.Size);
        BinaryPrimitives.WriteInt32BigEndian(message.AsSpan(24), length);
        lock (_gate)
        {
            if (_isLost) return NbdResult.Lost;
            BinaryPrimitives.WriteUInt64BigEndian(message.AsSpan(8), ++_last);
            _inFlight.Add(_last, (answer, read));
        }

        await _sending.WaitAsync();
        try
        {
            await _stream.WriteAsync(message);
        }
        catch (Exception failure) when (failure is IOException or ObjectDisposedException)
        {
            Lose();
        }
        finally
        {
            _sending.Release();
        }

        return await answer.Task;
    }

    private async Task ReceiveAsync()
    {
        try
        {
            while (true)
            {
                byte[] head = await ReadAsync(16);
                uint error = BinaryPrimitives.ReadUInt32BigEndian(head.AsSpan(4));
                ulong cookie = BinaryPrimitives.ReadUInt64BigEndian(head.AsSpan(8));
                (TaskCompletionSource<NbdResult> Answer, Memory<byte> Read) request;
                lock (_gate)
                {
                    request = _inFlight[cookie];
                    _inFlight.Remove(cookie);
                }

                if (error == 0) await _stream.ReadExactlyAsync(request.Read);
                request.Answer.SetResult(error == 0 ? NbdResult.Done : NbdResult.Refused);
            }
        }
        catch (Exception failure) when (failure is IOException or ObjectDisposedException)
        {
            Lose();
        }
    }

    private void Lose()
    {
        TaskCompletionSource<NbdResult>[] lost;
        lock (_gate)
        {
            _isLost = true;
            lost = [.. _inFlight.Values.Select(request => request.Answer)];
            _inFlight.Clear();
        }

        foreach (TaskCompletionSource<NbdResult> answer in lost) answer.TrySetResult(NbdResult.Lost);
    }

    private async Task<byte[]> ReadAsync(int length)
    {
        byte[] data = new byte[length];
        await _stream.ReadExactlyAsync(data);
        return data;
    }
}
