using NUnit.Framework;
using Ublkback.Blkif;

namespace Ublkback.Tests.Blkif;

[TestFixture("x86_64-abi")]
[TestFixture("x86_32-abi")]
public sealed class RingTests(string protocol) : RingFixture(protocol, order: 1)
{
    [Test]
    public void Carries_a_request_and_its_answer()
    {
        BlkifRequest request = new()
        {
            Operation = BlkifOperation.Write,
            SegmentCount = 2,
            Handle = 7,
            Id = ulong.MaxValue - 1,
            Sector = 1UL << 40
        };
        request.Segments[0] = new BlkifSegment(uint.MaxValue, 0, 7);
        request.Segments[1] = new BlkifSegment(3, 2, 4);
        Front.Put(request);
        Assert.That(Back.CountWaiting(), Is.Zero, "not pushed yet");
        Assert.That(Front.Push(), Is.True, "a fresh ring wants an event for the first request");

        Assert.That(Back.CountWaiting(), Is.EqualTo(1));
        Back.Take(0, out BlkifRequest taken);
        Assert.That(
            (taken.Operation, taken.SegmentCount, taken.Handle, taken.Id, taken.Sector),
            Is.EqualTo((request.Operation, request.SegmentCount, request.Handle, request.Id, request.Sector)));
        Assert.That((taken.Segments[0], taken.Segments[1]), Is.EqualTo((request.Segments[0], request.Segments[1])));

        BlkifResponse response = new(taken.Id, taken.Operation, BlkifStatus.NotSupported);
        Back.Put(0, response);
        Assert.That(Front.TryTake(out _), Is.False, "not published yet");
        Assert.That(Back.Publish(), Is.True);
        Assert.That(Front.TryTake(out BlkifResponse answer), Is.True);
        Assert.That(answer, Is.EqualTo(response));
    }

    [Test]
    public void A_slot_changed_after_it_was_taken_changes_nothing()
    {
        Front.Put(new BlkifRequest { Operation = BlkifOperation.Read, SegmentCount = 1, Sector = 8 });
        Front.Push();
        Back.Take(0, out BlkifRequest taken);

        Span<byte> slot = Memory().Slice(BlkifConstants.RingHeaderSize, Abi.RequestSize);
        slot.Fill(0xFF);

        Assert.That(
            (taken.Operation, taken.SegmentCount, taken.Sector), Is.EqualTo((BlkifOperation.Read, (byte)1, 8UL)));
    }

    [Test]
    public void Works_for_many_times_its_size()
    {
        Random random = new(2);
        ulong sent = 0, received = 0;
        Queue<(int Entry, ulong Id)> atBackend = new();
        Stack<int> free = new(Enumerable.Range(0, Back.SlotCount));
        while (received < 100_000)
        {
            for (int i = random.Next(Front.FreeCount + 1); i > 0; i--)
                Front.Put(new BlkifRequest { Operation = BlkifOperation.FlushDiskCache, Id = ++sent });
            Front.Push();
            for (int i = Back.CountWaiting(); i > 0; i--)
            {
                int entry = free.Pop();
                Back.Take(entry, out BlkifRequest request);
                atBackend.Enqueue((entry, request.Id));
            }

            for (int i = random.Next(atBackend.Count + 1); i > 0; i--)
            {
                (int entry, ulong id) = atBackend.Dequeue();
                Back.Put(entry, new BlkifResponse(id, BlkifOperation.FlushDiskCache, BlkifStatus.Okay));
                free.Push(entry);
            }

            Back.Publish();
            while (Front.TryTake(out BlkifResponse response))
                Assert.That(response.Id, Is.EqualTo(++received));
        }
    }

    [Test]
    public void A_producer_beyond_the_ring_is_noticed([Values(1u, 2u, 1000u, uint.MaxValue - 64)] uint beyond)
    {
        Front.SharedRequestProducer = (uint)Back.SlotCount + beyond;

        Assert.That(Back.CountWaiting(), Is.Negative);
    }

    [Test]
    public void A_full_ring_is_no_overflow()
    {
        for (int i = 0; i < Front.SlotCount; i++) Front.Put(new BlkifRequest { Id = (ulong)i });
        Front.Push();

        Assert.That(Back.CountWaiting(), Is.EqualTo(Back.SlotCount));
        Assert.That(() => Front.Put(default), Throws.InvalidOperationException);
    }

    [Test]
    public void Notifies_only_who_asked()
    {
        Front.Put(default);
        Assert.That(Front.Push(), Is.True);
        Front.Put(default);
        Assert.That(Front.Push(), Is.False, "the backend has not asked again");

        for (int i = 0; i < 2; i++)
        {
            Back.Take(i, out BlkifRequest request);
            Back.Put(i, new BlkifResponse(request.Id, request.Operation, BlkifStatus.Okay));
            Assert.That(Back.Publish(), Is.EqualTo(i == 0), "the frontend asked for one event");
        }

        Assert.That(Back.FinalCheck(), Is.False);
        Front.Put(default);
        Assert.That(Front.Push(), Is.True, "asked by the final check");
        Assert.That(Back.FinalCheck(), Is.True, "a request came meanwhile");
    }

    [Test]
    public void A_response_leaks_nothing_of_the_slot_before()
    {
        Memory().Slice(BlkifConstants.RingHeaderSize, Abi.RequestSize).Fill(0xEE);
        Back.Put(0, new BlkifResponse(0, BlkifOperation.Read, BlkifStatus.Okay));

        Assert.That(Memory().Slice(BlkifConstants.RingHeaderSize, Abi.ResponseSize).ToArray(), Is.All.Zero);
    }
}
