using System.Diagnostics;
using System.Runtime.InteropServices;
using Mono.Unix.Native;
using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;

namespace Ublkback.HostTests.Fixtures;

/// <summary>
/// A hostile frontend on one queue: requests of any operation, range, segments and grants, pages of segments that
/// change and grants that vanish while they are used, and storms of events. All comes from the seed but the time of it.
/// </summary>
internal sealed class RequestFuzzer
{
    private const int PageCount = 64;
    private const int EventBytes = 256;
    private const int BadReference = 0xBAD0000;

    private readonly EmulatedGuest _guest;
    private readonly FrontQueue _queue;
    private readonly Random _random;
    private readonly ulong _sectorCount;
    private readonly uint[] _frames = new uint[PageCount];
    private readonly uint[] _references = new uint[PageCount];
    private readonly HashSet<ulong> _unanswered = [];
    private readonly nint _events = Marshal.AllocHGlobal(EventBytes);
    private ulong _lastId;

    public RequestFuzzer(EmulatedGuest guest, FrontendConnection connection, int queue, int seed)
    {
        _guest = guest;
        _queue = connection.Queues[queue];
        _random = new Random(seed);
        _sectorCount = connection.SectorCount;
        for (int i = 0; i < PageCount; i++)
        {
            _frames[i] = guest.AllocatePages(1);
            // a former user's segments may name grants that are those of the ring now
            guest.Pages(_frames[i], 1).Clear();
            _references[i] = guest.Grant(_frames[i], connection.BackendDomid, isReadOnly: _random.Next(8) == 0);
        }
    }

    /// <summary>Sends requests and takes their answers: exactly one for each, whatever it says.</summary>
    public void Run(int requests, TimeSpan limit)
    {
        int sent = 0;
        while (sent < requests)
        {
            for (int burst = _random.Next(1, 64); burst > 0 && _queue.Ring.FreeCount > 0
                && sent < requests; burst--, sent++)
            {
                BlkifRequest request = MakeRequest();
                request.Id = ++_lastId;
                _unanswered.Add(_lastId);
                _queue.Ring.Put(request);
            }

            if (_queue.Ring.Push() || _random.Next(16) == 0) _queue.Channel.Notify();
            if (_random.Next(64) == 0) Storm();
            Disturb();
            TakeAnswers();
            if (_queue.Ring.FreeCount == 0) AwaitAnswers(limit);
        }

        while (_unanswered.Count > 0) AwaitAnswers(limit);
    }

    /// <summary>Claims more requests than the ring can hold.</summary>
    public void BreakRing()
    {
        _queue.Ring.SharedRequestProducer += (uint)_random.Next(_queue.Ring.SlotCount + 1, int.MaxValue);
        _queue.Channel.Notify();
    }

    /// <summary>Takes the pages back.</summary>
    public void Release()
    {
        Marshal.FreeHGlobal(_events);
        for (int i = 0; i < PageCount; i++)
        {
            _guest.Revoke(_references[i]);
            _guest.FreePage(_frames[i]);
        }
    }

    private void Storm()
    {
        for (int i = 0; i < 100; i++) _queue.Channel.Notify();
    }

    // While requests are being served, their pages of segments change, and a grant comes and goes.
    private void Disturb()
    {
        int page = _random.Next(PageCount);
        Span<byte> content = _guest.Pages(_frames[page], 1);
        if (_random.Next(4) == 0) FillSegments(content);
        if (_random.Next(256) != 0) return;
        _guest.Revoke(_references[page]);
        _references[page] = _guest.Grant(_frames[page], 0);
    }

    private void AwaitAnswers(TimeSpan limit)
    {
        long start = Stopwatch.GetTimestamp();
        Pollfd[] waits = [new Pollfd { fd = _queue.Channel.Descriptor.Number, events = PollEvents.POLLIN }];
        while (!TakeAnswers())
        {
            Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(limit), "a request is not answered");
            if (_queue.Ring.FinalCheck()) continue;
            _ = Syscall.poll(waits, 100);
            Drain();
        }
    }

    private void Drain() => _ = Syscall.read(_queue.Channel.Descriptor.Number, _events, EventBytes);

    private bool TakeAnswers()
    {
        bool any = false;
        while (_queue.Ring.TryTake(out BlkifResponse response))
        {
            any = true;
            Assert.That(
                _unanswered.Remove(response.Id), Is.True,
                $"{response}: each request is answered once, and {_lastId} were sent");
        }

        return any;
    }

    private BlkifRequest MakeRequest()
    {
        BlkifRequest request = new()
        {
            Operation = _random.Next(16) == 0 ? (BlkifOperation)_random.Next(256) : (BlkifOperation)_random.Next(7),
            SegmentCount = (byte)(_random.Next(16) == 0 ? _random.Next(256) : _random.Next(12)),
            Handle = (ushort)_random.Next(65536),
            Sector = MakeSector(),
        };
        switch (request.Operation)
        {
            case BlkifOperation.Discard:
                request.DiscardSectorCount = _random.Next(4) == 0 ? MakeSector() : (ulong)_random.Next(256);
                break;
            case BlkifOperation.Indirect:
                request.SegmentCount = (byte)(_random.Next(8) == 0 ? _random.Next(256) : _random.Next(2));
                request.Handle = (ushort)(_random.Next(8) == 0 ? _random.Next(65536) : _random.Next(258));
                request.DescriptorReference = MakeReference();
                break;
            default:
                for (int i = 0; i < BlkifConstants.MaxDirectSegments; i++) request.Segments[i] = MakeSegment();
                break;
        }

        return request;
    }

    private ulong MakeSector() => _random.Next(8) switch
    {
        0 => (ulong)_random.NextInt64(long.MinValue, long.MaxValue),
        1 => _sectorCount - (ulong)_random.Next(16),
        2 => ulong.MaxValue - (ulong)_random.Next(4096),
        _ => (ulong)_random.NextInt64((long)_sectorCount),
    };

    private uint MakeReference() => _random.Next(32) switch
    {
        0 => (uint)_random.Next(),
        1 => BadReference,
        _ => _references[_random.Next(PageCount)],
    };

    private BlkifSegment MakeSegment() => _random.Next(16) == 0
        ? new BlkifSegment(MakeReference(), (byte)_random.Next(256), (byte)_random.Next(256))
        : new BlkifSegment(MakeReference(), (byte)_random.Next(4), (byte)_random.Next(4, 8));

    private void FillSegments(Span<byte> page)
    {
        Span<BlkifSegment> segments = MemoryMarshal.Cast<byte, BlkifSegment>(page)[..256];
        if (_random.Next(4) == 0) _random.NextBytes(page);
        else segments.Fill(MakeSegment());
        segments[_random.Next(segments.Length)] = MakeSegment();
    }
}
