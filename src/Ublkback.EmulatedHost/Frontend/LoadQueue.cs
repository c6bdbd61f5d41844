using System.Diagnostics;
using System.Runtime.InteropServices;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;

namespace Ublkback.EmulatedHost.Frontend;

/// <summary>What a load asks of a disk.</summary>
/// <param name="IsWrite">Writes; otherwise reads.</param>
/// <param name="IsRandom">At random places; otherwise one after the other.</param>
/// <param name="BlockSize">Bytes of a request, a multiple of 4096.</param>
/// <param name="Depth">Requests in flight in each queue.</param>
public sealed record LoadPattern(bool IsWrite, bool IsRandom, int BlockSize, int Depth);

/// <summary>
/// Keeps one queue of a frontend busy, and does nothing else: pages are granted before it starts, data is not looked
/// at, and nothing is allocated while it runs. Like an idle processor of a guest, it looks for answers for a while
/// before it sleeps. All on one worker.
/// </summary>
public sealed class LoadQueue : RingOperation, IWork, IPolledWork
{
    private const int PollMicroseconds = 200; // Linux's guest_halt_poll_ns

    private static readonly long PollTicks = Stopwatch.Frequency / 1_000_000 * PollMicroseconds;

    private readonly Worker _worker;
    private readonly FrontQueue _queue;
    private readonly LoadPattern _pattern;
    private readonly Action<long> _onAnswer;
    private readonly BlkifRequest[] _requests;
    private readonly long[] _startedAt;
    private readonly Memory<byte> _event;
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly ulong _firstSector;
    private readonly uint _blockCount;
    private ulong _random;
    private uint _next;
    private int _inFlight;
    private volatile bool _isStopping;

    /// <summary>Makes a load over a part of a disk.</summary>
    /// <param name="worker">Does the work.</param>
    /// <param name="guest">Whose pages are used.</param>
    /// <param name="connection">The connected frontend.</param>
    /// <param name="number">Which of its queues.</param>
    /// <param name="pattern">What to ask.</param>
    /// <param name="onAnswer">Takes the time of each request in ticks of the stopwatch, on the worker.</param>
    public LoadQueue(
        Worker worker, EmulatedGuest guest, FrontendConnection connection, int number, LoadPattern pattern,
        Action<long> onAnswer)
    {
        _worker = worker;
        _queue = connection.Queues[number];
        _pattern = pattern;
        _onAnswer = onAnswer;
        _event = PinnedMemory.Allocate(_queue.Channel.ReadLength);
        _startedAt = new long[pattern.Depth];
        _blockCount = (uint)(connection.SectorCount * 512 / (ulong)pattern.BlockSize / (ulong)connection.Queues.Count);
        _firstSector = (ulong)number * _blockCount * (ulong)pattern.BlockSize / 512;
        _random = (ulong)(number + 1) * 0x9E3779B97F4A7C15;
        GrantedPages pages = new(guest, connection.BackendDomid, isPersistent: true);
        _requests = [.. Enumerable.Range(0, pattern.Depth).Select(id => Prepare(id, guest, pages))];
    }

    /// <inheritdoc/>
    public bool IsScheduled { get; set; }

    /// <inheritdoc/>
    public bool HasWork => _queue.Ring.HasResponses;

    /// <summary>Whether a request has failed.</summary>
    public bool HasFailed { get; private set; }

    /// <summary>Begins.</summary>
    public void Start() => _worker.Post(() =>
    {
        for (int id = 0; id < _requests.Length; id++) Issue(id, Stopwatch.GetTimestamp());
        Push();
        _worker.Schedule(this);
    });

    /// <summary>Asks nothing more; ends when all is answered.</summary>
    public Task StopAsync()
    {
        _worker.Post(() =>
        {
            _isStopping = true;
            if (_inFlight == 0) _ended.TrySetResult();
        });
        return _ended.Task;
    }

    /// <summary>Takes what has come, and asks for more.</summary>
    public void Run()
    {
        long now = Stopwatch.GetTimestamp();
        while (_queue.Ring.TryTake(out BlkifResponse response)) Take(response, now);
        Push();
        if (_inFlight > 0) _worker.Poll(this, PollTicks);
        else _ended.TrySetResult();
    }

    /// <inheritdoc/>
    public void EndPolling(bool hasWork)
    {
        if (hasWork || _queue.Ring.FinalCheck()) _worker.Schedule(this);
        else if (!IsUnderWay) _worker.Operations.StartRead(this, _queue.Channel.Descriptor, _event);
    }

    /// <inheritdoc/>
    protected override void Completed(int result) => _worker.Schedule(this);

    private void Take(in BlkifResponse response, long now)
    {
        int id = (int)response.Id;
        _inFlight--;
        HasFailed |= response.Status != BlkifStatus.Okay;
        _onAnswer(now - _startedAt[id]);
        if (!_isStopping) Issue(id, now);
    }

    private void Issue(int id, long now)
    {
        _requests[id].Sector = NextSector();
        _startedAt[id] = now;
        _inFlight++;
        _queue.Ring.Put(_requests[id]);
    }

    private void Push()
    {
        if (_queue.Ring.Push()) _queue.Channel.Notify();
    }

    private ulong NextSector()
    {
        uint block = _next++ % _blockCount;
        if (_pattern.IsRandom)
        {
            // xorshift64*, taken to the range by its high half
            _random ^= _random >> 12;
            _random ^= _random << 25;
            _random ^= _random >> 27;
            block = (uint)((((_random * 0x2545F4914F6CDD1D) >> 32) * _blockCount) >> 32);
        }

        return _firstSector + ((ulong)block * (ulong)_pattern.BlockSize / 512);
    }

    private BlkifRequest Prepare(int id, EmulatedGuest guest, GrantedPages pages)
    {
        int count = _pattern.BlockSize / BlkifConstants.PageSize;
        BlkifOperation operation = _pattern.IsWrite ? BlkifOperation.Write : BlkifOperation.Read;
        BlkifSegment[] segments = [.. Enumerable.Range(0, count).Select(_ =>
            new BlkifSegment(pages.Rent(isReadOnly: false).Reference, 0, BlkifConstants.SectorsPerPage - 1))];
        BlkifRequest request = new() { Id = (ulong)id, Operation = operation, SegmentCount = (byte)count };
        if (count <= BlkifConstants.MaxDirectSegments)
        {
            segments.CopyTo(request.Segments);
            return request;
        }

        GrantedPage descriptor = pages.Rent(isReadOnly: false);
        segments.CopyTo(MemoryMarshal.Cast<byte, BlkifSegment>(guest.Pages(descriptor.Frame, 1)));
        request.Operation = BlkifOperation.Indirect;
        request.SegmentCount = (byte)operation;
        request.Handle = (ushort)count;
        request.DescriptorReference = descriptor.Reference;
        return request;
    }
}
