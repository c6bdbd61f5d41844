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
    private FrontRing _front = null!;
    private BackRing _back = null!;

    [SetUp]
    public unsafe void Make()
    {
        _memory = (nint)NativeMemory.AllocZeroed((nuint)(BlkifConstants.PageSize << Order));
        _front = new FrontRing(_memory, Order, _abi);
        _back = new BackRing(_memory, Order, _abi);
    }

    [TearDown]
    public unsafe void Free() => NativeMemory.Free((void*)_memory);

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
        _back.Take(out BlkifRequest taken);
        Assert.That(
            (taken.Operation, taken.SegmentCount, taken.Handle, taken.Id, taken.Sector),
            Is.EqualTo((request.Operation, request.SegmentCount, request.Handle, request.Id, request.Sector)));
        Assert.That((taken.Segments[0], taken.Segments[1]), Is.EqualTo((request.Segments[0], request.Segments[1])));

        BlkifResponse response = new(taken.Id, taken.Operation, BlkifStatus.NotSupported);
        _back.Put(response);
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
        _back.Take(out BlkifRequest taken);

        Span<byte> slot = Memory().Slice(BlkifConstants.RingHeaderSize, _abi.RequestSize);
        slot.Fill(0xFF);

        Assert.That((taken.Operation, taken.SegmentCount, taken.Sector), Is.EqualTo((BlkifOperation.Read, (byte)1, 8UL)));
    }

    [Test]
    public void Works_for_many_times_its_size()
    {
        Random random = new(2);
        ulong sent = 0, received = 0;
        Queue<ulong> atBackend = new();
        while (received < 100_000)
        {
            for (int i = random.Next(_front.FreeCount + 1); i > 0; i--)
                _front.Put(new BlkifRequest { Operation = BlkifOperation.FlushDiskCache, Id = ++sent });
            _front.Push();
            for (int i = _back.CountWaiting(); i > 0; i--)
            {
                _back.Take(out BlkifRequest request);
                atBackend.Enqueue(request.Id);
            }

            for (int i = random.Next(atBackend.Count + 1); i > 0; i--)
                _back.Put(new BlkifResponse(atBackend.Dequeue(), BlkifOperation.FlushDiskCache, BlkifStatus.Okay));
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
            _back.Take(out BlkifRequest request);
            _back.Put(new BlkifResponse(request.Id, request.Operation, BlkifStatus.Okay));
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
        _back.Put(new BlkifResponse(0, BlkifOperation.Read, BlkifStatus.Okay));

        Assert.That(Memory().Slice(BlkifConstants.RingHeaderSize, _abi.ResponseSize).ToArray(), Is.All.Zero);
    }

    [Test]
    public void A_successor_goes_on_where_all_was_answered()
    {
        for (int i = 0; i < 5; i++)
        {
            _front.Put(new BlkifRequest { Id = (ulong)i });
            _front.Push();
            _back.Take(out BlkifRequest request);
            _back.Put(new BlkifResponse(request.Id, request.Operation, BlkifStatus.Okay));
            _back.Publish();
            _front.TryTake(out _);
        }

        _front.Put(new BlkifRequest { Id = 99 });
        _front.Push();
        BackRing successor = new(_memory, Order, _abi, _back.ResponseProducer);
        Assert.That(successor.SharedResponseProducer, Is.EqualTo(5));
        Assert.That(successor.CountWaiting(), Is.EqualTo(1));
        successor.Take(out BlkifRequest waiting);
        successor.Put(new BlkifResponse(waiting.Id, waiting.Operation, BlkifStatus.Okay));
        successor.Publish();

        Assert.That(_front.TryTake(out BlkifResponse answer), Is.True);
        Assert.That(answer.Id, Is.EqualTo(99));
    }

    private unsafe Span<byte> Memory() => new((void*)_memory, BlkifConstants.PageSize << Order);
}
