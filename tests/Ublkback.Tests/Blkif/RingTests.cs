using System.Runtime.InteropServices;
using NUnit.Framework;
using Ublkback.Blkif;

namespace Ublkback.Tests.Blkif;

[TestFixture("x86_64-abi")]
[TestFixture("x86_32-abi")]
public sealed class RingTests(string protocol)
{
    private const int Order = 1;

    private readonly BlkifAbi _abi = BlkifAbi.FromProtocol(protocol)!;
    private nint _memory;
    private nint _journal;
    private FrontRing _front = null!;
    private BackRing _back = null!;

    [SetUp]
    public unsafe void Make()
    {
        _memory = (nint)NativeMemory.AllocZeroed((nuint)(BlkifConstants.PageSize << Order));
        _front = new FrontRing(_memory, Order, _abi);
        int slots = BlkifConstants.SlotCount(Order);
        _journal = (nint)NativeMemory.AllocZeroed((nuint)RingJournal.SizeOf(slots));
        _back = BackRing.Create(_memory, Order, _abi, new RingJournal(_journal, slots));
    }

    [TearDown]
    public unsafe void Free()
    {
        NativeMemory.Free((void*)_memory);
        NativeMemory.Free((void*)_journal);
    }

    [Test]
    public void Carries_a_request_and_its_answer()
    {
        BlkifRequest request = new() { Operation = BlkifOperation.Write, SegmentCount = 2, Handle = 7, Id = ulong.MaxValue - 1, Sector = 1UL << 40 };
        request.Segments[0] = new BlkifSegment(uint.MaxValue, 0, 7);
        request.Segments[1] = new BlkifSegment(3, 2, 4);
        _front.Put(request);
        Assert.That(_back.CountWaiting(), Is.Zero, "not pushed yet");
        Assert.That(_front.Push(), Is.True, "a fresh ring wants an event for the first request");

        Assert.That(_back.CountWaiting(), Is.EqualTo(1));
        _back.Take(0, out BlkifRequest taken);
        Assert.That(
            (taken.Operation, taken.SegmentCount, taken.Handle, taken.Id, taken.Sector),
            Is.EqualTo((request.Operation, request.SegmentCount, request.Handle, request.Id, request.Sector)));
        Assert.That((taken.Segments[0], taken.Segments[1]), Is.EqualTo((request.Segments[0], request.Segments[1])));

        BlkifResponse response = new(taken.Id, taken.Operation, BlkifStatus.NotSupported);
        _back.Put(0, response);
        Assert.That(_front.TryTake(out _), Is.False, "not published yet");
        Assert.That(_back.Publish(), Is.True);
        Assert.That(_front.TryTake(out BlkifResponse answer), Is.True);
        Assert.That(answer, Is.EqualTo(response));
    }

    [Test]
    public void A_slot_changed_after_it_was_taken_changes_nothing()
    {
        _front.Put(new BlkifRequest { Operation = BlkifOperation.Read, SegmentCount = 1, Sector = 8 });
        _front.Push();
        _back.Take(0, out BlkifRequest taken);

        Span<byte> slot = Memory().Slice(BlkifConstants.RingHeaderSize, _abi.RequestSize);
        slot.Fill(0xFF);

        Assert.That((taken.Operation, taken.SegmentCount, taken.Sector), Is.EqualTo((BlkifOperation.Read, (byte)1, 8UL)));
    }

    [Test]
    public void Works_for_many_times_its_size()
    {
        Random random = new(2);
        ulong sent = 0, received = 0;
        Queue<(int Entry, ulong Id)> atBackend = new();
        Stack<int> free = new(Enumerable.Range(0, _back.SlotCount));
        while (received < 100_000)
        {
            for (int i = random.Next(_front.FreeCount + 1); i > 0; i--)
                _front.Put(new BlkifRequest { Operation = BlkifOperation.FlushDiskCache, Id = ++sent });
            _front.Push();
            for (int i = _back.CountWaiting(); i > 0; i--)
            {
                int entry = free.Pop();
                _back.Take(entry, out BlkifRequest request);
                atBackend.Enqueue((entry, request.Id));
            }

            for (int i = random.Next(atBackend.Count + 1); i > 0; i--)
            {
                (int entry, ulong id) = atBackend.Dequeue();
                _back.Put(entry, new BlkifResponse(id, BlkifOperation.FlushDiskCache, BlkifStatus.Okay));
                free.Push(entry);
            }

            _back.Publish();
            while (_front.TryTake(out BlkifResponse response))
                Assert.That(response.Id, Is.EqualTo(++received));
        }
    }

    [Test]
    public void A_producer_beyond_the_ring_is_noticed([Values(1u, 2u, 1000u, uint.MaxValue - 64)] uint beyond)
    {
        _front.SharedRequestProducer = (uint)_back.SlotCount + beyond;

        Assert.That(_back.CountWaiting(), Is.Negative);
    }

    [Test]
    public void A_full_ring_is_no_overflow()
    {
        for (int i = 0; i < _front.SlotCount; i++) _front.Put(new BlkifRequest { Id = (ulong)i });
        _front.Push();

        Assert.That(_back.CountWaiting(), Is.EqualTo(_back.SlotCount));
        Assert.That(() => _front.Put(default), Throws.InvalidOperationException);
    }

    [Test]
    public void Notifies_only_who_asked()
    {
        _front.Put(default);
        Assert.That(_front.Push(), Is.True);
        _front.Put(default);
        Assert.That(_front.Push(), Is.False, "the backend has not asked again");

        for (int i = 0; i < 2; i++)
        {
            _back.Take(i, out BlkifRequest request);
            _back.Put(i, new BlkifResponse(request.Id, request.Operation, BlkifStatus.Okay));
            Assert.That(_back.Publish(), Is.EqualTo(i == 0), "the frontend asked for one event");
        }

        Assert.That(_back.FinalCheck(), Is.False);
        _front.Put(default);
        Assert.That(_front.Push(), Is.True, "asked by the final check");
        Assert.That(_back.FinalCheck(), Is.True, "a request came meanwhile");
    }

    [Test]
    public void A_response_leaks_nothing_of_the_slot_before()
    {
        Memory().Slice(BlkifConstants.RingHeaderSize, _abi.RequestSize).Fill(0xEE);
        _back.Put(0, new BlkifResponse(0, BlkifOperation.Read, BlkifStatus.Okay));

        Assert.That(Memory().Slice(BlkifConstants.RingHeaderSize, _abi.ResponseSize).ToArray(), Is.All.Zero);
    }

    private unsafe Span<byte> Memory() => new((void*)_memory, BlkifConstants.PageSize << Order);
}
