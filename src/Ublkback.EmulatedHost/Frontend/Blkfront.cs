using System.Runtime.InteropServices;
using Mono.Unix.Native;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.XenStore;

namespace Ublkback.EmulatedHost.Frontend;

/// <summary>
/// A user-level block frontend: does what a guest's blkfront does, over the store, rings and event channels. One
/// request is a task; any thread.
/// </summary>
public sealed class Blkfront : IAsyncDisposable
{
    private const int PageSize = BlkifConstants.PageSize;

    private readonly EmulatedGuest _guest;
    private readonly FrontendConnection _connection;
    private readonly GrantedPages _pages;
    private readonly RequestQueue[] _queues;
    private uint _next;

    private Blkfront(EmulatedGuest guest, FrontendConnection connection)
    {
        _guest = guest;
        _connection = connection;
        _pages = new GrantedPages(guest, connection.BackendDomid, connection.Options.IsPersistent);
        _queues = [.. connection.Queues.Select(queue => new RequestQueue(queue))];
    }

    /// <summary>Size of the disk in sectors of 512 bytes.</summary>
    public ulong SectorCount => _connection.SectorCount;

    /// <summary>Smallest unit of a request in bytes.</summary>
    public int SectorSize => _connection.SectorSize;

    /// <summary>The flags of blkif.h: 1 CD-ROM, 2 removable, 4 read-only.</summary>
    public int Info => _connection.Info;

    /// <summary>The conversation with the backend.</summary>
    public FrontendConnection Connection => _connection;

    /// <summary>Port of the first queue.</summary>
    public uint Port => _connection.Queues[0].Port;

    /// <summary>Ring of the first queue, for tests that misuse it.</summary>
    public FrontRing Ring => _connection.Queues[0].Ring;

    /// <summary>Slots of each queue's ring.</summary>
    public int SlotCount => Ring.SlotCount;

    /// <summary>Connects to the backend of a device that the toolstack has made.</summary>
    /// <exception cref="TimeoutException">The backend did not come along in time.</exception>
    public static async Task<Blkfront> ConnectAsync(
        EmulatedGuest guest, XenStoreClient store, int deviceId, BlkfrontOptions options, TimeSpan timeout) =>
        new(
            guest,
            await FrontendConnection.ConnectAsync(guest, store, deviceId, options, timeout).ConfigureAwait(false));

    /// <summary>Reads whole sectors; the buffer's length tells how many.</summary>
    public Task<BlkifStatus> ReadAsync(ulong sector, Memory<byte> buffer) =>
        TransferAsync(BlkifOperation.Read, sector, buffer);

    /// <summary>Writes whole sectors.</summary>
    public Task<BlkifStatus> WriteAsync(ulong sector, ReadOnlyMemory<byte> buffer) =>
        TransferAsync(BlkifOperation.Write, sector, MemoryMarshal.AsMemory(buffer));

    /// <summary>Writes up to 11 pages after all that was asked before, and durably.</summary>
    public async Task<BlkifStatus> WriteBarrierAsync(ulong sector, ReadOnlyMemory<byte> buffer) =>
        (await TransferPieceAsync(BlkifOperation.WriteBarrier, sector, MemoryMarshal.AsMemory(buffer))
            .ConfigureAwait(false)).Status;

    /// <summary>Makes completed writes durable.</summary>
    public async Task<BlkifStatus> FlushAsync() =>
        (await SubmitAsync(new BlkifRequest { Operation = BlkifOperation.FlushDiskCache })
            .ConfigureAwait(false)).Status;

    /// <summary>Frees sectors.</summary>
    public async Task<BlkifStatus> DiscardAsync(ulong sector, ulong count) => (await SubmitAsync(new BlkifRequest
    {
        Operation = BlkifOperation.Discard,
        Sector = sector,
        DiscardSectorCount = count,
    }).ConfigureAwait(false)).Status;

    /// <summary>
    /// Puts a request of any content into a ring, with an id of our own, and awaits its answer.
    /// </summary>
    public Task<BlkifResponse> SubmitAsync(BlkifRequest request, int? queue = null) =>
        _queues[queue ?? (int)(Interlocked.Increment(ref _next) % (uint)_queues.Length)].SubmitAsync(request);

    /// <summary>Tells the backend of an event, needed or not.</summary>
    public void Notify() => _connection.Queues[0].Channel.Notify();

    /// <summary>Closes as a guest does that lets go of the disk: Closing, Closed, and the backend follows.</summary>
    public async Task CloseAsync(TimeSpan timeout)
    {
        await _connection.CloseAsync(timeout).ConfigureAwait(false);
        _pages.RevokeKept();
        await DisposeAsync().ConfigureAwait(false);
    }

    /// <summary>Stops without a word to the backend. Requests in flight fail.</summary>
    public async ValueTask DisposeAsync()
    {
        foreach (RequestQueue queue in _queues) await queue.DisposeAsync().ConfigureAwait(false);
        _connection.Dispose();
    }

    private async Task<BlkifStatus> TransferAsync(BlkifOperation operation, ulong sector, Memory<byte> buffer)
    {
        int maxBytes = _connection.Options.MaxSegments * PageSize;
        BlkifStatus status = BlkifStatus.Okay;
        for (int done = 0; done < buffer.Length; done += maxBytes)
        {
            Memory<byte> piece = buffer.Slice(done, Math.Min(maxBytes, buffer.Length - done));
            BlkifResponse response = await TransferPieceAsync(
                operation, sector + (ulong)(done / 512), piece).ConfigureAwait(false);
            if (response.Status != BlkifStatus.Okay) status = response.Status;
        }

        return status;
    }

    private async Task<BlkifResponse> TransferPieceAsync(BlkifOperation operation, ulong sector, Memory<byte> piece)
    {
        bool isRead = operation == BlkifOperation.Read;
        GrantedPage[] pages = new GrantedPage[(piece.Length + PageSize - 1) / PageSize];
        BlkifSegment[] segments = new BlkifSegment[pages.Length];
        for (int i = 0; i < pages.Length; i++)
        {
            pages[i] = _pages.Rent(isReadOnly: !isRead);
            Span<byte> part = Part(piece, i);
            if (!isRead) part.CopyTo(_guest.Pages(pages[i].Frame, 1));
            segments[i] = new BlkifSegment(pages[i].Reference, 0, (byte)((part.Length / 512) - 1));
        }

        BlkifResponse response = await SubmitAsync(operation, sector, segments).ConfigureAwait(false);
        for (int i = 0; i < pages.Length; i++)
        {
            Span<byte> part = Part(piece, i);
            if (isRead) _guest.Pages(pages[i].Frame, 1)[..part.Length].CopyTo(part);
            _pages.Return(pages[i]);
        }

        return response;
    }

    private static Span<byte> Part(Memory<byte> piece, int page) =>
        piece.Span[(page * PageSize)..Math.Min((page + 1) * PageSize, piece.Length)];

    private async Task<BlkifResponse> SubmitAsync(BlkifOperation operation, ulong sector, BlkifSegment[] segments)
    {
        BlkifRequest request = new() { Operation = operation, Sector = sector, SegmentCount = (byte)segments.Length };
        if (segments.Length <= BlkifConstants.MaxDirectSegments)
        {
            segments.CopyTo(request.Segments);
            return await SubmitAsync(request).ConfigureAwait(false);
        }

        GrantedPage descriptor = _pages.Rent(isReadOnly: true);
        segments.CopyTo(MemoryMarshal.Cast<byte, BlkifSegment>(_guest.Pages(descriptor.Frame, 1)));
        request.Operation = BlkifOperation.Indirect;
        request.SegmentCount = (byte)operation;
        request.Handle = (ushort)segments.Length;
        request.DescriptorReference = descriptor.Reference;
        BlkifResponse response = await SubmitAsync(request).ConfigureAwait(false);
        _pages.Return(descriptor);
        return response;
    }

    /// <summary>One queue's requests in flight, and the thread that takes their answers.</summary>
    private sealed class RequestQueue : IAsyncDisposable
    {
        private const int PollTimeoutMs = 100; // bounds the wait when the disk is closed

        private readonly FrontQueue _queue;
        private readonly Lock _lock = new();
        private readonly Dictionary<ulong, TaskCompletionSource<BlkifResponse>> _inFlight = [];
        private readonly SemaphoreSlim _freeSlots;
        private readonly Thread _receiver;
        private ulong _lastId;
        private volatile bool _isClosed;

        public RequestQueue(FrontQueue queue)
        {
            _queue = queue;
            _freeSlots = new SemaphoreSlim(queue.Ring.SlotCount);
            _receiver = new Thread(Receive) { IsBackground = true, Name = "blkfront" };
            _receiver.Start();
        }

        public async Task<BlkifResponse> SubmitAsync(BlkifRequest request)
        {
            await _freeSlots.WaitAsync().ConfigureAwait(false);
            TaskCompletionSource<BlkifResponse> answer = new(TaskCreationOptions.RunContinuationsAsynchronously);
            lock (_lock)
            {
                if (_isClosed) throw new InvalidOperationException("the disk is closed");
                request.Id = ++_lastId;
                _inFlight.Add(request.Id, answer);
                _queue.Ring.Put(request);
                if (_queue.Ring.Push()) _queue.Channel.Notify();
            }

            return await answer.Task.ConfigureAwait(false);
        }

        public async ValueTask DisposeAsync()
        {
            lock (_lock)
            {
                if (_isClosed) return;
                _isClosed = true;
            }

            await Task.Run(_receiver.Join).ConfigureAwait(false);
            foreach (TaskCompletionSource<BlkifResponse> answer in _inFlight.Values)
                answer.TrySetException(new InvalidOperationException("the disk was closed"));
            _freeSlots.Dispose();
        }

        private void Receive()
        {
            Span<byte> drained = stackalloc byte[64];
            Pollfd[] waits = [new Pollfd { fd = _queue.Channel.Descriptor.Number, events = PollEvents.POLLIN }];
            while (!_isClosed)
            {
                do
                {
                    while (TryTake(out BlkifResponse response, out TaskCompletionSource<BlkifResponse>? answer))
                    {
                        _freeSlots.Release();
                        // An answer that nobody asked for, or a second one, is the backend's gravest fault.
                        if (answer is null) Environment.FailFast($"blkfront: no request {response.Id} is in flight");
                        answer.SetResult(response);
                    }
                }
                while (_queue.Ring.FinalCheck());

                _ = Syscall.poll(waits, PollTimeoutMs);
                Drain(drained);
            }
        }

        private bool TryTake(out BlkifResponse response, out TaskCompletionSource<BlkifResponse>? answer)
        {
            lock (_lock)
            {
                answer = null;
                if (!_queue.Ring.TryTake(out response)) return false;
                _inFlight.Remove(response.Id, out answer);
                return true;
            }
        }

        private unsafe void Drain(Span<byte> buffer)
        {
            fixed (byte* bytes = buffer)
                _ = Syscall.read(_queue.Channel.Descriptor.Number, bytes, (ulong)buffer.Length);
        }
    }
}
