using System.Text;
using NUnit.Framework;
using Ublkback.Parallax.Requests;

namespace Ublkback.Tests.Parallax;

/// <summary>Requests to the holder of a VDI in a pool, which the cluster may deliver twice.</summary>
public sealed class AnsweredRequestsTests
{
    [Test]
    public void A_message_is_an_id_and_a_request()
    {
        Guid id = Guid.NewGuid();
        (Guid Id, byte[] Request)? read = AnsweredRequests.Open(AnsweredRequests.Seal(id, "{}"u8));
        Assert.That(read!.Value.Id, Is.EqualTo(id));
        Assert.That(read.Value.Request, Is.EqualTo("{}"u8.ToArray()));
        Assert.That(AnsweredRequests.Open(new byte[15]), Is.Null);
    }

    [Test]
    public async Task A_known_request_gets_its_first_reply_also_while_it_is_carried_out()
    {
        AnsweredRequests requests = new();
        TaskCompletionSource<byte[]> reply = new();
        Guid id = Guid.NewGuid();
        int times = 0;
        Task<byte[]>[] answers = [.. Enumerable.Range(0, 3).Select(_ => requests.AnswerAsync(id, CarryOut))];
        reply.SetResult([1]);
        Assert.That(await Task.WhenAll(answers), Is.All.EqualTo(new byte[] { 1 }));
        Assert.That(await requests.AnswerAsync(id, CarryOut), Is.EqualTo(new byte[] { 1 }));
        Assert.That(times, Is.EqualTo(1));

        Task<byte[]> CarryOut()
        {
            Interlocked.Increment(ref times);
            return reply.Task;
        }
    }

    [Test]
    public async Task The_ids_of_the_last_requests_are_kept_and_long_replies_are_not()
    {
        AnsweredRequests requests = new();
        Guid[] ids = [.. Enumerable.Range(0, 100).Select(_ => Guid.NewGuid())];
        foreach (Guid id in ids[..40]) await requests.AnswerAsync(id, () => Task.FromResult<byte[]>([2]));
        Assert.That(
            ids.Select(id => AnsweredRequests.IsMissing(requests.GetIds(), id)),
            Is.EqualTo(Enumerable.Range(0, 100).Select(i => i >= 40)));
        foreach (Guid id in ids[40..]) await requests.AnswerAsync(id, () => Task.FromResult<byte[]>([2]));
        Assert.That(requests.GetIds(), Has.Length.EqualTo(64 * 16));
        Assert.That(
            ids.Append(Guid.NewGuid()).Select(id => AnsweredRequests.IsMissing(requests.GetIds(), id)), Is.All.False);
        Assert.That(ids.Select(id => requests.Find(id) is not null),
            Is.EqualTo(Enumerable.Range(0, 100).Select(i => i >= 36)));
        await requests.AnswerAsync(ids[99], () => throw new InvalidOperationException("it is known"));
        Guid list = Guid.NewGuid();
        await requests.AnswerAsync(list, () => Task.FromResult(new byte[5000]));
        Assert.That(requests.GetIds().AsSpan().EndsWith(list.ToByteArray()));
        byte[] again = await requests.AnswerAsync(list, () => Task.FromResult(Encoding.ASCII.GetBytes("made again")));
        Assert.That(Encoding.ASCII.GetString(again), Is.EqualTo("made again"));
    }
}
