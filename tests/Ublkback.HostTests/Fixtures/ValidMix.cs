using System.Diagnostics;
using System.Runtime.InteropServices;
using Mono.Unix.Native;
using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;

namespace Ublkback.HostTests.Fixtures;

/// <summary>
/// Valid requests of every kind on all queues of a frontend, in any mix and many at once: each must be answered Okay,
/// and reads must return what a model holds. Sectors that requests wrote at the same time are not compared.
/// </summary>
internal sealed class ValidMix
{
    private const int PageSize = BlkifConstants.PageSize;
    private const int PageCount = 1024;
    private const int EventBytes = 256;

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly EmulatedGuest _guest;
    private readonly FrontendConnection _connection;
    private readonly Random _random;
    private readonly DiskModel _model;
    private readonly ulong _unit;
    private readonly bool _hasDiscard;
    private readonly Stack<uint> _frames = new();
    private readonly Dictionary<uint, uint> _keptGrants = [];
    private readonly Dictionary<ulong, Flight> _flights = [];
    private readonly nint _events = Marshal.AllocHGlobal(EventBytes);

    /// <summary>Prepares the pages of a guest.</summary>
    /// <param name="guest">The guest.</param>
    /// <param name="connection">Its connected frontend.</param>
    /// <param name="model">The content of the disk.</param>
    /// <param name="hasDiscard">True if the disk offers to discard.</param>
    /// <param name="seed">Decides on all requests.</param>
    public ValidMix(EmulatedGuest guest, FrontendConnection connection, DiskModel model, bool hasDiscard, int seed)
    {
        _guest = guest;
        _connection = connection;
        _model = model;
        _hasDiscard = hasDiscard;
        _random = new Random(seed);
        _unit = (ulong)connection.SectorSize / 512;
        for (int i = 0; i < PageCount; i++) _frames.Push(guest.AllocatePages(1));
    }

    /// <summary>Requests that were answered.</summary>
    public int Answered { get; private set; }

    /// <summary>Makes requests and checks the answers to all of them.</summary>
    public void Run(int requests)
    {
        for (int sent = 0; sent < requests;)
        {
            FrontQueue queue = _connection.Queues[_random.Next(_connection.Queues.Count)];
            for (int burst = _random.Next(1, 40); burst > 0 && queue.Ring.FreeCount > 0 && sent < requests; burst--)
            {
                if (!TryMake(out BlkifRequest request)) break;
                queue.Ring.Put(request);
                sent++;
            }

            if (queue.Ring.Push()) queue.Channel.Notify();
            TakeAnswers();
            bool isFull = _frames.Count < PageCount / 3 || queue.Ring.FreeCount == 0;
            if (isFull || _random.Next(8) == 0) AwaitAnswers(_random.Next(40));
        }

        AwaitAnswers(0);
    }

    /// <summary>Frees the pages, once the disk is closed.</summary>
    public void Release()
    {
        foreach (uint reference in _keptGrants.Values) _guest.Revoke(reference);
        foreach (uint frame in _frames) _guest.FreePage(frame);
        Marshal.FreeHGlobal(_events);
    }

    private bool TryMake(out BlkifRequest request)
    {
        BlkifOperation operation = _random.Next(20) switch
        {
            < 8 => BlkifOperation.Read,
            < 15 => BlkifOperation.Write,
            15 => BlkifOperation.WriteBarrier,
            16 => BlkifOperation.FlushDiskCache,
            _ => _hasDiscard ? BlkifOperation.Discard : BlkifOperation.Read,
        };
        bool isIndirect = operation is BlkifOperation.Read or BlkifOperation.Write && _random.Next(3) == 0;
        Flight flight = new(operation);
        request = new BlkifRequest
        {
            Operation = operation,
            Id = NextId(),
            Handle = (ushort)_random.Next(ushort.MaxValue),
        };
        if (operation == BlkifOperation.Discard)
        {
            flight.Count = Math.Min(_model.SectorCount, (ulong)_random.Next(1, 600) * _unit);
            request.DiscardSectorCount = flight.Count;
        }
        else
        {
            int least = operation is BlkifOperation.WriteBarrier or BlkifOperation.FlushDiskCache ? 0 : 1;
            int most = isIndirect ? _random.Next(4) == 0 ? 256 : 40 : BlkifConstants.MaxDirectSegments;
            if (_frames.Count <= most + 1) return false;
            MakeSegments(flight, _random.Next(least, most + 1));
            request.SegmentCount = (byte)flight.Segments.Count;
            if (isIndirect) Describe(ref request, flight);
            else CollectionsMarshal.AsSpan(flight.Segments).CopyTo(request.Segments);
        }

        request.Sector = PlaceOf(flight.Count);
        flight.Sector = request.Sector;
        _model.Begin(flight.Access, flight.Sector, flight.Count);
        if (flight.Access.IsWrite && flight.Count > 0) FillData(flight);
        _flights.Add(request.Id, flight);
        return true;
    }

    // A barrier and a flush without data may name any sector.
    private ulong PlaceOf(ulong count)
    {
        if (count == 0) return (ulong)_random.NextInt64();
        ulong last = _model.SectorCount - count;
        ulong sector = _random.Next(8) switch
        {
            0 => last,
            1 => 0,
            _ => (ulong)_random.NextInt64((long)last + 1),
        };
        return sector / _unit * _unit;
    }

    private ulong NextId()
    {
        ulong id;
        do id = (ulong)_random.NextInt64(long.MinValue, long.MaxValue);
        while (_flights.ContainsKey(id));
        return id;
    }

    // Of a page, a request may name any piece; two pieces of one page may follow each other.
    private void MakeSegments(Flight flight, int count)
    {
        bool isWhole = _unit > 1 || _random.Next(3) == 0;
        while (flight.Segments.Count < count)
        {
            if (_model.SectorCount - flight.Count < BlkifConstants.SectorsPerPage) break;
            uint frame = _frames.Pop();
            uint reference = Grant(frame, isReadOnly: flight.Access.IsWrite && _random.Next(2) == 0);
            flight.Pages.Add((frame, reference));
            int first = isWhole ? 0 : _random.Next(BlkifConstants.SectorsPerPage);
            int last = isWhole ? 7 : _random.Next(first, BlkifConstants.SectorsPerPage);
            Add(flight, frame, new BlkifSegment(reference, (byte)first, (byte)last));
            if (isWhole || last == 7 || flight.Segments.Count == count || _random.Next(2) == 0) continue;
            Add(flight, frame, new BlkifSegment(reference, (byte)(last + 1), 7));
        }
    }

    private static void Add(Flight flight, uint frame, BlkifSegment segment)
    {
        flight.Segments.Add(segment);
        flight.Frames.Add(frame);
        flight.Count += (ulong)segment.SectorCount;
    }

    private void Describe(ref BlkifRequest request, Flight flight)
    {
        uint frame = _frames.Pop();
        uint reference = Grant(frame, isReadOnly: _random.Next(2) == 0);
        flight.Pages.Add((frame, reference));
        CollectionsMarshal.AsSpan(flight.Segments).CopyTo(
            MemoryMarshal.Cast<byte, BlkifSegment>(_guest.Pages(frame, 1)));
        request.Operation = BlkifOperation.Indirect;
        request.SegmentCount = (byte)flight.Operation;
        request.Handle = (ushort)flight.Segments.Count;
        request.DescriptorReference = reference;
    }

    private uint Grant(uint frame, bool isReadOnly)
    {
        if (!_connection.Options.IsPersistent) return _guest.Grant(frame, _connection.BackendDomid, isReadOnly);
        if (_keptGrants.TryGetValue(frame, out uint kept)) return kept;
        return _keptGrants[frame] = _guest.Grant(frame, _connection.BackendDomid);
    }

    private void FillData(Flight flight)
    {
        byte[] data = new byte[flight.Count * 512];
        _random.NextBytes(data);
        flight.Data = data;
        ForEachPiece(flight, (piece, place) => data.AsSpan(place, piece.Length).CopyTo(piece));
    }

    private void ForEachPiece(Flight flight, PieceAction action)
    {
        int place = 0;
        for (int i = 0; i < flight.Segments.Count; i++)
        {
            BlkifSegment segment = flight.Segments[i];
            Span<byte> piece = _guest.Pages(flight.Frames[i], 1).Slice(segment.First * 512, segment.SectorCount * 512);
            action(piece, place);
            place += piece.Length;
        }
    }

    private void AwaitAnswers(int left)
    {
        long start = Stopwatch.GetTimestamp();
        Pollfd[] waits = [.. _connection.Queues.Select(
            queue => new Pollfd { fd = queue.Channel.Descriptor.Number, events = PollEvents.POLLIN })];
        while (_flights.Count > left)
        {
            TakeAnswers();
            if (_connection.Queues.Any(queue => queue.Ring.FinalCheck()) || _flights.Count <= left) continue;
            Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(Patience), $"{_flights.Count} are not answered");
            _ = Syscall.poll(waits, 100);
            foreach (Pollfd wait in waits) _ = Syscall.read(wait.fd, _events, EventBytes);
        }
    }

    private void TakeAnswers()
    {
        foreach (FrontQueue queue in _connection.Queues)
        {
            while (queue.Ring.TryTake(out BlkifResponse response)) Check(response);
        }
    }

    private void Check(BlkifResponse response)
    {
        Assert.That(_flights.Remove(response.Id, out Flight? flight), Is.True, $"{response} answers nothing");
        string name = $"{flight!.Operation} of {flight.Count} sectors in {flight.Segments.Count} pieces at "
            + $"{flight.Sector} of {_model.SectorCount}";
        Assert.That(
            (response.Operation, response.Status), Is.EqualTo((flight.Operation, BlkifStatus.Okay)), name);
        if (flight.Operation == BlkifOperation.Read)
        {
            byte[] read = new byte[flight.Count * 512];
            ForEachPiece(flight, (piece, place) => piece.CopyTo(read.AsSpan(place)));
            flight.Data = read;
        }

        Assert.That(_model.End(flight.Access, flight.Sector, flight.Count, flight.Data), Is.Null, name);
        foreach ((uint frame, uint reference) in flight.Pages)
        {
            if (!_connection.Options.IsPersistent) _guest.Revoke(reference);
            _frames.Push(frame);
        }

        Answered++;
    }

    private delegate void PieceAction(Span<byte> piece, int place);

    /// <summary>A request in flight.</summary>
    private sealed class Flight(BlkifOperation operation)
    {
        public BlkifOperation Operation => operation;

        public DiskModel.Access Access { get; } =
            new(operation != BlkifOperation.Read, operation == BlkifOperation.Discard);

        public ulong Sector { get; set; }

        public ulong Count { get; set; }

        public byte[] Data { get; set; } = [];

        public List<BlkifSegment> Segments { get; } = [];

        public List<uint> Frames { get; } = [];

        public List<(uint Frame, uint Reference)> Pages { get; } = [];
    }
}
