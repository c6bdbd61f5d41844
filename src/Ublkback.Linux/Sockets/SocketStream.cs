using System.Buffers;
using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Mono.Unix.Native;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;

namespace Ublkback.Linux.Sockets;

/// <summary>
/// A connected stream socket, whose bytes go through the io_uring of the worker on whose thread it is used. It may move
/// to another worker while nothing is under way. One read and one write at a time. Cancellation tokens are not looked
/// at: <see cref="Abort"/> ends what is under way.
/// </summary>
/// <remarks>
/// TLS of the framework goes on in the thread pool now and then; what it asks for there is done by the worker that
/// asked last.
/// </remarks>
public sealed partial class SocketStream : Stream
{
    private const int TcpSynCount = 7; // TCP_SYNCNT, tcp.h
    private const short PeerClosed = 0x2000; // POLLRDHUP, poll.h
    private const short HungUp = 0x10; // POLLHUP
    private const short Broken = 0x8; // POLLERR
    private const int ConnectionAttempts = 3; // of the kernel, 1, 2 and 4 s apart

    private readonly Socket _owner;
    private readonly FileDescriptor _socket;
    private Worker? _worker;

    /// <summary>Takes ownership of a socket, with which nothing asynchronous was done.</summary>
    public SocketStream(Socket socket)
    {
        ArgumentNullException.ThrowIfNull(socket);
        if (socket.AddressFamily != AddressFamily.Unix)
        {
            socket.NoDelay = true;
            socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);
        }

        _owner = socket;
        _socket = FileDescriptor.Of(socket);
    }

    /// <summary>
    /// Whether the other end has closed the connection, or its process has ended, read or not. Any thread, before it is
    /// closed.
    /// </summary>
    public unsafe bool IsPeerGone
    {
        get
        {
            PollDescriptor descriptor = new() { Number = _socket.Number, Events = PeerClosed };
            return poll(&descriptor, 1, 0) > 0 && (descriptor.Returned & (PeerClosed | HungUp | Broken)) != 0;
        }
    }

    /// <inheritdoc/>
    public override bool CanRead => true;

    /// <inheritdoc/>
    public override bool CanWrite => true;

    /// <inheritdoc/>
    public override bool CanSeek => false;

    /// <inheritdoc/>
    public override long Length => throw new NotSupportedException();

    /// <inheritdoc/>
    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    /// <summary>Connects to a place. On a worker.</summary>
    /// <exception cref="IOException">Nobody listens there.</exception>
    public static async Task<SocketStream> ConnectAsync(EndPoint place)
    {
        ArgumentNullException.ThrowIfNull(place);
        ProtocolType protocol = place.AddressFamily == AddressFamily.Unix ? ProtocolType.Unspecified : ProtocolType.Tcp;
        Socket socket;
        try
        {
            socket = new Socket(place.AddressFamily, SocketType.Stream, protocol);
        }
        catch (SocketException failure)
        {
            throw new IOException(failure.Message, failure);
        }

        if (protocol == ProtocolType.Tcp)
            socket.SetRawSocketOption(
                (int)SocketOptionLevel.Tcp, TcpSynCount, BitConverter.GetBytes(ConnectionAttempts));
        SocketStream stream = new(socket);
        SocketAddress serialized = place.Serialize();
        Memory<byte> address = serialized.Buffer[..serialized.Size];
        using MemoryHandle pin = address.Pin();
        int result = await Worker.Current.Operations.ConnectAsync(stream._socket, address);
        if (result == 0) return stream;
        await stream.DisposeAsync();
        throw new IOException(LinuxError.Describe(-result));
    }

    /// <summary>
    /// Ends the connection: what is under way ends soon, and nothing can be sent or received any more. Any thread.
    /// </summary>
    public void Abort() => _ = Syscall.shutdown(_socket.Number, ShutdownOption.SHUT_RDWR);

    /// <inheritdoc/>
    public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
        IsOnWorker() ? ReceiveAsync(buffer) : ReceiveElsewhereAsync(buffer);

    // Not the usual builder: its tasks go on in the thread pool when they end on a thread with a context.
    /// <inheritdoc/>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public override async ValueTask WriteAsync(
        ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        Memory<byte> rest = MemoryMarshal.AsMemory(buffer);
        if (IsOnWorker()) await SendAllAsync(rest);
        else await SendElsewhereAsync(rest).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    /// <inheritdoc/>
    public override Task WriteAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        WriteAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    /// <inheritdoc/>
    public override void Flush()
    {
    }

    /// <inheritdoc/>
    public override Task FlushAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <inheritdoc/>
    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    /// <inheritdoc/>
    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    /// <inheritdoc/>
    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    /// <inheritdoc/>
    public override void SetLength(long value) => throw new NotSupportedException();

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing) _owner.Dispose();
        base.Dispose(disposing);
    }

    private bool IsOnWorker()
    {
        if (BlockLoop.IsAnyCurrent) _worker = Worker.Current;
        return BlockLoop.IsAnyCurrent;
    }

    // Methods of their own: what a lambda captures is allocated where its method begins.
    private ValueTask<int> ReceiveElsewhereAsync(Memory<byte> buffer) =>
        new(_worker!.InvokeAsync(async () => await ReceiveAsync(buffer)));

    private ValueTask<int> SendElsewhereAsync(Memory<byte> buffer) =>
        new(_worker!.InvokeAsync(async () => await SendAllAsync(buffer)));

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<int> SendAllAsync(Memory<byte> rest)
    {
        int length = rest.Length;
        while (!rest.IsEmpty) rest = rest[await SendAsync(rest)..];
        return length;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<int> ReceiveAsync(Memory<byte> buffer)
    {
        using MemoryHandle pin = buffer.Pin();
        int result;
        do result = await Worker.Current.Operations.ReadAsync(_socket, buffer, -1);
        while (result == -LinuxError.Interrupted);
        return result >= 0 ? result : throw new IOException(LinuxError.Describe(-result));
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<int> SendAsync(Memory<byte> buffer)
    {
        using MemoryHandle pin = buffer.Pin();
        int result;
        do result = await Worker.Current.Operations.WriteAsync(_socket, buffer, -1);
        while (result == -LinuxError.Interrupted);
        return result >= 0 ? result : throw new IOException(LinuxError.Describe(-result));
    }

    [LibraryImport("libc", SetLastError = true)]
    private static unsafe partial int poll(PollDescriptor* descriptors, ulong count, int timeout);

    /// <summary>struct pollfd (poll.h).</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct PollDescriptor
    {
        public int Number;
        public short Events;
        public short Returned;
    }
}
