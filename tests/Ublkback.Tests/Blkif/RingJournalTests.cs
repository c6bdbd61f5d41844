using NUnit.Framework;
using Ublkback.Blkif;

namespace Ublkback.Tests.Blkif;

/// <summary>A backend's end of a ring that dies between any two of its steps, and its successors.</summary>
[TestFixture("x86_64-abi")]
[TestFixture("x86_32-abi")]
public sealed class RingJournalTests(string protocol) : RingFixture(protocol, order: 0)
{
    private const int Slots = 32;

    [Test]
    public void Each_request_is_answered_once_however_often_itsBackend_dies([Range(1, 20)] int seed)
    {
        Random random = new(seed);
        ulong sent = 0;
        HashSet<ulong> unanswered = [];
        List<(int Entry, BlkifRequest Request)> inHand = []; // in the order of the ring
        List<int> answered = []; // and not published
        Stack<int> free = new(Enumerable.Range(0, Slots));
        for (int step = 0; step < 20_000; step++)
        {
            switch (random.Next(5))
            {
                case 0 when Front.FreeCount > 0:
                    Front.Put(new BlkifRequest { Operation = BlkifOperation.Discard, Id = ++sent, Sector = sent * 8 });
                    unanswered.Add(sent);
                    Front.Push();
                    break;
                case 1 when Back.CountWaiting() > 0:
                    int entry = free.Pop();
                    Back.Take(entry, out BlkifRequest request);
                    inHand.Add((entry, request));
                    break;
                case 2 when inHand.Count > 0:
                    int chosen = random.Next(inHand.Count);
                    Back.Put(inHand[chosen].Entry, Answer(inHand[chosen].Request));
                    answered.Add(inHand[chosen].Entry);
                    inHand.RemoveAt(chosen);
                    break;
                case 3:
                    Back.Publish();
                    answered.ForEach(free.Push);
                    answered.Clear();
                    break;
                case 4 when random.Next(10) == 0:
                    Recover();
                    answered.ForEach(free.Push);
                    answered.Clear();
                    Assert.That(Back.FindPending(), Is.EqualTo(inHand.Select(held => held.Entry)));
                    foreach ((int held, BlkifRequest before) in inHand)
                    {
                        Back.Retake(held, out BlkifRequest again);
                        Assert.That(
                            (again.Id, again.Sector, again.Operation),
                            Is.EqualTo((before.Id, before.Sector, before.Operation)));
                    }

                    break;
            }

            while (Front.TryTake(out BlkifResponse response))
            {
                Assert.That(unanswered.Remove(response.Id), Is.True, "each is answered once");
                Assert.That(
                    response,
                    Is.EqualTo(Answer(new BlkifRequest { Operation = BlkifOperation.Discard, Id = response.Id })));
            }
        }

        Assert.That(unanswered, Has.Count.LessThanOrEqualTo(Slots));
    }

    [Test]
    public void A_death_between_showing_and_noting_it_is_finished()
    {
        Take(0);
        Back.Put(0, new BlkifResponse(1, BlkifOperation.Read, BlkifStatus.Okay));
        byte[] before = Journal().ToArray();
        Back.Publish();
        Assert.That(Front.TryTake(out _), Is.True);
        // All that the journal was told but the last store, of what was published.
        ulong intended = BitConverter.ToUInt64(Journal()[8..]);
        before.CopyTo(Journal());
        BitConverter.TryWriteBytes(Journal()[8..], intended);
        // The guest has used the response's slot again.
        for (ulong id = 2; id < 2 + Slots; id++)
            Front.Put(new BlkifRequest { Operation = BlkifOperation.Read, Id = id });
        Front.Push();

        Recover();

        Assert.That(Front.TryTake(out _), Is.False, "not answered again");
        Assert.That(Back.FindPending(), Is.Empty);
        Assert.That(Back.CountWaiting(), Is.EqualTo(Slots));
        for (int entry = 0; entry < Slots; entry++)
        {
            Back.Take(entry, out BlkifRequest request);
            Assert.That((request.Operation, request.Id), Is.EqualTo((BlkifOperation.Read, (ulong)entry + 2)));
        }
    }

    [Test]
    public void A_death_before_showing_publishes_again()
    {
        Take(0);
        Back.Put(0, new BlkifResponse(1, BlkifOperation.Read, BlkifStatus.Error));
        BitConverter.TryWriteBytes(Journal()[8..], 1UL); // intended

        Recover();

        Assert.That(Front.TryTake(out BlkifResponse answer), Is.True);
        Assert.That(answer, Is.EqualTo(new BlkifResponse(1, BlkifOperation.Read, BlkifStatus.Error)));
    }

    [Test]
    public void Attempts_are_counted_and_forgiven()
    {
        Take(3);
        Assert.That(Back.Attempts(3), Is.EqualTo(1));
        for (int deaths = 1; deaths <= 3; deaths++)
        {
            Recover();
            Back.Retake(3, out _);
            Assert.That(Back.Attempts(3), Is.EqualTo(1 + deaths));
        }

        Back.Forgive(3);
        Recover();
        Back.Retake(3, out _);
        Assert.That(Back.Attempts(3), Is.EqualTo(2));
        Back.Put(3, new BlkifResponse(1, BlkifOperation.Read, BlkifStatus.Okay));
        Back.Publish();
        Take(3);
        Assert.That(Back.Attempts(3), Is.EqualTo(1), "another request");
    }

    [Test]
    public void A_ring_whose_response_index_the_guest_wrote_is_refused([Values(1u, 7u, uint.MaxValue)] uint index)
    {
        BitConverter.TryWriteBytes(Memory()[8..], index);

        Assert.That(TryRecover(), Is.False);
    }

    private static BlkifResponse Answer(BlkifRequest request) =>
        new(request.Id, request.Operation, request.Id % 3 == 0 ? BlkifStatus.Error : BlkifStatus.Okay);

    private void Take(int entry)
    {
        Front.Put(new BlkifRequest { Operation = BlkifOperation.Read, Id = 1 });
        Front.Push();
        Back.Take(entry, out _);
    }

    private void Recover() => Assert.That(TryRecover(), Is.True);
}
