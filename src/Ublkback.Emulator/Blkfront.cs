using System.Globalization;
using Mono.Unix.Native;
using Ublkback.Blkif;
using Ublkback.Xen;
using Ublkback.XenStore;

namespace Ublkback.Emulator;

/// <summary>How a <see cref="Blkfront"/> connects.</summary>
/// <param name="Abi">Layout of its slots.</param>
/// <param name="RingPageOrder">Its ring has 2^order pages; null: one page, the old way.</param>
public sealed record BlkfrontOptions(BlkifAbi Abi, int? RingPageOrder = null);

/// <summary>
/// A user-level block frontend: does what a guest's blkfront does, over the store, a ring and an event channel. One
/// request is a task; any thread.
/// </summary>
public sealed class Blkfront : IAsyncDisposable
{
    private const int PollTimeoutMs = 100; // bounds the wait when the disk is closed

    private readonly EmulatedGuest _guest;
    private readonly XenStoreClient _store;
    private readonly string _path;
    private readonly string _backendPath;
    private readonly int _backendDomid;
    private readonly Lock _lock = new();
    private readonly Dictionary<ulong, TaskCompletionSource<BlkifResponse>> _inFlight = [];
    private readonly SemaphoreSlim _freeSlots;
    private readonly FrontRing _ring;
    private readonly IEventChannel _channel;
    private readonly uint[] _ringReferences;
    private readonly Thread _receiver;
    private ulong _lastId;
    private volatile bool _isClosed;

    private Blkfront(
        EmulatedGuest guest, XenStoreClient store, string path, string backendPath, int backendDomid,
        BlkfrontOptions options)
    {
        _guest = guest;
        _store = store;
        _path = path;
        _backendPath = backendPath;
        _backendDomid = backendDomid;
        int order = options.RingPageOrder ?? 0;
        uint ringPage = guest.AllocatePages(1 << order);
        _ring = new FrontRing(guest.AddressOf(ringPage), order, options.Abi);
        _ringReferences = [.. Enumerable.Range(0, 1 << order).Select(i => guest.Grant(ringPage + (uint)i, backendDomid))];
        (Port, _channel) = guest.AllocatePort();
        _freeSlots = new SemaphoreSlim(_ring.SlotCount);
        _receiver = new Thread(Receive) { IsBackground = true, Name = "blkfront" };
    }

    /// <summary>Size of the disk in sectors of 512 bytes.</summary>
    public ulong SectorCount { get; private set; }

    /// <summary>Smallest unit of a request in bytes.</summary>
    public int SectorSize { get; private set; }

    /// <summary>The flags of blkif.h: 1 CD-ROM, 2 removable, 4 read-only.</summary>
    public int Info { get; private set; }

    /// <summary>Whether the backend takes flushes.</summary>
    public bool CanFlush { get; private set; }

    /// <summary>Our port.</summary>
    public uint Port { get; }

    /// <summary>The ring, for tests that misuse it.</summary>
    public FrontRing Ring => _ring;

    /// <summary>Slots of the ring.</summary>
    public int SlotCount => _ring.SlotCount;

    /// <summary>Connects to the backend of a device that the toolstack has made.</summary>
    /// <exception cref="TimeoutException">The backend did not come along in time.</exception>
    public static async Task<Blkfront> ConnectAsync(
        EmulatedGuest guest, XenStoreClient store, int deviceId, BlkfrontOptions options, TimeSpan timeout)
    {
        string path = string.Create(CultureInfo.InvariantCulture, $"/local/domain/{guest.Domid}/device/vbd/{deviceId}");
        string backend = await store.ReadAsync($"{path}/backend").ConfigureAwait(false)
            ?? throw new InvalidOperationException($"{path} has no backend: attach the disk first");
        int backendDomid = int.Parse(
            await store.ReadAsync($"{path}/backend-id").ConfigureAwait(false) ?? "0", CultureInfo.InvariantCulture);
        await WaitForStateAsync(store, backend, timeout, "2", "4").ConfigureAwait(false);

        Blkfront front = new(guest, store, path, backend, backendDomid, options);
        await store.TransactAsync(async transaction =>
        {
            foreach ((string name, string value) in front.Describe(options))
                await transaction.WriteAsync($"{path}/{name}", value).ConfigureAwait(false);
            await transaction.WriteAsync($"{path}/state", "3").ConfigureAwait(false);
            return true;
        }).ConfigureAwait(false);
        await WaitForStateAsync(store, backend, timeout, "4").ConfigureAwait(false);
        await front.ReadBackendAsync().ConfigureAwait(false);
        await store.WriteAsync($"{path}/state", "4").ConfigureAwait(false);
        front._receiver.Start();
        return front;
    }

    /// <summary>Waits until a directory's state is one of some; null stands for a missing one.</summary>
    /// <exception cref="TimeoutException">It does not become one in time.</exception>
    public static async Task WaitForStateAsync(
        XenStoreClient store, string path, TimeSpan timeout, params string?[] states)
    {
        XenStoreWatch watch = await store.WatchAsync($"{path}/state").ConfigureAwait(false);
        using CancellationTokenSource limit = new(timeout);
        string? state = null;
        try
        {
            do
            {
                await watch.WaitAsync(limit.Token).ConfigureAwait(false);
                state = await store.ReadAsync($"{path}/state").ConfigureAwait(false);
            }
            while (!states.Contains(state));
        }
        catch (OperationCanceledException)
        {
            throw new TimeoutException($"{path} stays in state {state ?? "(none)"}; awaited: {string.Join(", ", states)}");
        }
        finally
        {
            await store.UnwatchAsync(watch).ConfigureAwait(false);
        }
    }

    /// <summary>Reads whole sectors; the buffer's length tells how many.</summary>
    public Task<BlkifStatus> ReadAsync(ulong sector, Memory<byte> buffer) =>
        TransferAsync(BlkifOperation.Read, sector, buffer);

    /// <summary>Writes whole sectors.</summary>
    public Task<BlkifStatus> WriteAsync(ulong sector, ReadOnlyMemory<byte> buffer) =>
        TransferAsync(BlkifOperation.Write, sector, System.Runtime.InteropServices.MemoryMarshal.AsMemory(buffer));

    /// <summary>Makes completed writes durable.</summary>
    public async Task<BlkifStatus> FlushAsync() =>
        (await SubmitAsync(new BlkifRequest { Operation = BlkifOperation.FlushDiskCache }).ConfigureAwait(false)).Status;

    /// <summary>
    /// Puts a request of any content into the ring, with an id of our own, and awaits its answer.
    /// </summary>
    public async Task<BlkifResponse> SubmitAsync(BlkifRequest request)
    {
        await _freeSlots.WaitAsync().ConfigureAwait(false);
        TaskCompletionSource<BlkifResponse> answer = new(TaskCreationOptions.RunContinuationsAsynchronously);
        lock (_lock)
        {
            if (_isClosed) throw new InvalidOperationException("the disk is closed");
            request.Id = ++_lastId;
            _inFlight.Add(request.Id, answer);
            _ring.Put(request);
            if (_ring.Push()) _channel.Notify();
        }

        return await answer.Task.ConfigureAwait(false);
    }

    /// <summary>Tells the backend of an event, needed or not.</summary>
    public void Notify() => _channel.Notify();

    /// <summary>Closes as a guest does that lets go of the disk: Closing, Closed, and the backend follows.</summary>
    public async Task CloseAsync(TimeSpan timeout)
    {
        await _store.WriteAsync($"{_path}/state", "5").ConfigureAwait(false);
        await WaitForStateAsync(_store, _backendPath, timeout, "5", "6", null).ConfigureAwait(false);
        await _store.WriteAsync($"{_path}/state", "6").ConfigureAwait(false);
        await WaitForStateAsync(_store, _backendPath, timeout, "6", null).ConfigureAwait(false);
        await DisposeAsync().ConfigureAwait(false);
    }

    /// <summary>Stops without a word to the backend. Requests in flight fail.</summary>
    public async ValueTask DisposeAsync()
    {
        lock (_lock)
        {
            if (_isClosed) return;
            _isClosed = true;
        }

        if (_receiver.IsAlive) await Task.Run(_receiver.Join).ConfigureAwait(false);
        foreach (TaskCompletionSource<BlkifResponse> answer in _inFlight.Values)
            answer.TrySetException(new InvalidOperationException("the disk was closed"));
        foreach (uint reference in _ringReferences) _guest.Revoke(reference);
        _channel.Dispose();
        _freeSlots.Dispose();
    }

    private IEnumerable<(string Name, string Value)> Describe(BlkfrontOptions options)
    {
        yield return ("protocol", options.Abi.Protocol);
        yield return ("event-channel", Port.ToString(CultureInfo.InvariantCulture));
        if (options.RingPageOrder is not int order)
        {
            yield return ("ring-ref", _ringReferences[0].ToString(CultureInfo.InvariantCulture));
            yield break;
        }

        yield return ("ring-page-order", order.ToString(CultureInfo.InvariantCulture));
        for (int i = 0; i < _ringReferences.Length; i++)
        {
            yield return (
                string.Create(CultureInfo.InvariantCulture, $"ring-ref{i}"),
                _ringReferences[i].ToString(CultureInfo.InvariantCulture));
        }
    }

    private async Task ReadBackendAsync()
    {
        SectorCount = ulong.Parse(await Node("sectors").ConfigureAwait(false), CultureInfo.InvariantCulture);
        SectorSize = int.Parse(await Node("sector-size").ConfigureAwait(false), CultureInfo.InvariantCulture);
        Info = int.Parse(await Node("info").ConfigureAwait(false), CultureInfo.InvariantCulture);
        CanFlush = await _store.ReadAsync($"{_backendPath}/feature-flush-cache").ConfigureAwait(false) == "1";

        async Task<string> Node(string name) =>
            await _store.ReadAsync($"{_backendPath}/{name}").ConfigureAwait(false)
            ?? throw new InvalidDataException($"the backend has no node {name}");
    }

    private async Task<BlkifStatus> TransferAsync(BlkifOperation operation, ulong sector, Memory<byte> buffer)
    {
        const int PageSize = BlkifConstants.PageSize;
        const int MaxBytes = BlkifConstants.MaxDirectSegments * PageSize;
        BlkifStatus status = BlkifStatus.Okay;
        for (int done = 0; done < buffer.Length; done += MaxBytes)
        {
            Memory<byte> piece = buffer.Slice(done, Math.Min(MaxBytes, buffer.Length - done));
            BlkifResponse response = await TransferPieceAsync(
                operation, sector + (ulong)(done / 512), piece).ConfigureAwait(false);
            if (response.Status != BlkifStatus.Okay) status = response.Status;
        }

        return status;
    }

    private async Task<BlkifResponse> TransferPieceAsync(BlkifOperation operation, ulong sector, Memory<byte> piece)
    {
        const int PageSize = BlkifConstants.PageSize;
        int pages = (piece.Length + PageSize - 1) / PageSize;
        BlkifRequest request = new() { Operation = operation, SegmentCount = (byte)pages, Sector = sector };
        uint[] frames = new uint[pages];
        for (int i = 0; i < pages; i++)
        {
            frames[i] = _guest.AllocatePages(1);
            Span<byte> part = piece.Span[(i * PageSize)..Math.Min((i + 1) * PageSize, piece.Length)];
            if (operation == BlkifOperation.Write) part.CopyTo(_guest.Pages(frames[i], 1));
            uint reference = _guest.Grant(frames[i], _backendDomid, isReadOnly: operation == BlkifOperation.Write);
            request.Segments[i] = new BlkifSegment(reference, 0, (byte)((part.Length / 512) - 1));
        }

        BlkifResponse response = await SubmitAsync(request).ConfigureAwait(false);
        for (int i = 0; i < pages; i++)
        {
            Span<byte> part = piece.Span[(i * PageSize)..Math.Min((i + 1) * PageSize, piece.Length)];
            if (operation == BlkifOperation.Read) _guest.Pages(frames[i], 1)[..part.Length].CopyTo(part);
            _guest.Revoke(request.Segments[i].Gref);
            _guest.FreePage(frames[i]);
        }

        return response;
    }

    private void Receive()
    {
        Span<byte> drained = stackalloc byte[64];
        Pollfd[] waits = [new Pollfd { fd = _channel.Descriptor.Number, events = PollEvents.POLLIN }];
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
            while (_ring.FinalCheck());

            _ = Syscall.poll(waits, PollTimeoutMs);
            Drain(drained);
        }
    }

    private bool TryTake(out BlkifResponse response, out TaskCompletionSource<BlkifResponse>? answer)
    {
        lock (_lock)
        {
            answer = null;
            if (!_ring.TryTake(out response)) return false;
            _inFlight.Remove(response.Id, out answer);
            return true;
        }
    }

    private unsafe void Drain(Span<byte> buffer)
    {
        fixed (byte* bytes = buffer) _ = Syscall.read(_channel.Descriptor.Number, bytes, (ulong)buffer.Length);
    }
}
