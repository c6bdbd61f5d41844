using NUnit.Framework;
using Ublkback.Linux.Workers;

namespace Ublkback.Tests.Linux;

public sealed class BufferShareTests
{
    private const int Unit = 64 << 10;
    private const int Total = 1024;

    [Test]
    public void Users_that_give_nothing_back_leave_some_to_the_rest([Values(1, 2, 10, 20)] int stalled)
    {
        using Worker worker = new("test");
        using WorkerBuffers buffers = new(worker.Schedule, (long)Total * Unit);
        for (int i = 0; i < stalled; i++) RentAll(new RingBufferQuota(buffers, new IdleWork(), i));

        Assert.That(buffers.FreeBytes, Is.GreaterThanOrEqualTo((long)(Total * Math.Pow(8.0 / 9, stalled)) * Unit));
        Assert.That(new RingBufferQuota(buffers, new IdleWork(), 1000).TryRent(Unit, out _), Is.True);
    }

    [Test]
    public void One_that_gives_back_may_have_as_much_again()
    {
        using Worker worker = new("test");
        using WorkerBuffers buffers = new(worker.Schedule, (long)Total * Unit);
        RingBufferQuota share = new(buffers, new IdleWork(), 1000);
        List<Memory<byte>> held = RentAll(share);
        Assert.That(held, Has.Count.EqualTo(Total / 9));
        foreach (Memory<byte> buffer in held) share.Return(buffer);

        Assert.That(RentAll(share), Has.Count.EqualTo(Total / 9));
    }

    [Test]
    public void Who_withdraws_is_in_nobodys_way()
    {
        using Worker worker = new("test");
        using WorkerBuffers buffers = new(worker.Schedule, Unit);
        RingBufferQuota holder = new(buffers, new IdleWork(), 1);
        Assert.That(holder.TryRent(Unit, out Memory<byte> all), Is.True);
        RingBufferQuota first = new(buffers, new IdleWork(), 2);
        RingBufferQuota second = new(buffers, new IdleWork(), 3);
        Assert.That(first.TryRent(Unit, out _) || second.TryRent(Unit, out _), Is.False);

        first.Withdraw();
        holder.Return(all);

        Assert.That(second.TryRent(Unit, out _), Is.True);
    }

    [Test]
    public void All_users_of_one_owner_leave_as_much_as_they_hold()
    {
        using Worker worker = new("test");
        using WorkerBuffers buffers = new(worker.Schedule, (long)Total * Unit);
        List<RingBufferQuota> shares = [
            .. Enumerable.Range(0, 30).Select(_ => new RingBufferQuota(buffers, new IdleWork(), 1))];
        List<Memory<byte>>[] held = [.. shares.Select(RentAll)];
        Assert.That(held.Sum(own => own.Count), Is.EqualTo(Total / 2));
        List<Memory<byte>> others = RentAll(new RingBufferQuota(buffers, new IdleWork(), 2));
        Assert.That(others, Has.Count.EqualTo((Total / 2 / 9) + 1));
    }

    [Test]
    public void Who_may_not_have_more_when_it_is_the_first_of_those_who_wait_is_in_nobodys_way()
    {
        using Worker worker = new("test");
        using WorkerBuffers buffers = new(worker.Schedule, 32L * Unit);
        RingBufferQuota[] shares = [
            .. new[] { 1, 2, 3, 4, 2, 5 }.Select(owner => new RingBufferQuota(buffers, new IdleWork(), owner))];
        Assert.That(shares[0].TryRent(16 * Unit, out Memory<byte> half) && shares[1].TryRent(4 * Unit, out _), Is.True);
        int[] wanted = [16, 8, 4];
        for (int i = 0; i < 3; i++) Assert.That(shares[2 + i].TryRent(wanted[i] * Unit, out _), Is.False, $"{i} waits");
        shares[0].Return(half);
        Assert.That(
            shares[2].TryRent(16 * Unit, out _) && shares[3].TryRent(8 * Unit, out _), Is.True,
            "those who waited first");
        Assert.That(shares[4].TryRent(4 * Unit, out _), Is.False, "its owner would hold more than it leaves");
        Assert.That(shares[5].TryRent(2 * Unit, out _), Is.True, "who comes later");
    }

    [Test]
    public async Task Who_was_refused_has_a_turn_when_its_owner_gives_back()
    {
        using Worker worker = new("test");
        await worker.InvokeAsync(() =>
        {
            WorkerBuffers buffers = worker.Buffers;
            int half = (int)(Worker.BufferBytes / 2);
            RingBufferQuota first = new(buffers, new IdleWork(), 1);
            IdleWork waiter = new();
            RingBufferQuota second = new(buffers, waiter, 1);
            Assert.That(first.TryRent(half, out Memory<byte> all), Is.True);
            Assert.That(second.TryRent(Unit, out _), Is.False);
            Assert.That(waiter.IsScheduled, Is.False);
            first.Return(all);
            Assert.That(waiter.IsScheduled, Is.True);
            Assert.That(second.TryRent(Unit, out Memory<byte> mine), Is.True);
            second.Return(mine);
            return Task.FromResult(true);
        });
    }

    // What it holds itself, or its domain, may be stuck below an image that has stalled.
    [TestCase(1, TestName = "A_ring_that_its_own_quota_refused_has_a_turn_when_others_have_returned_enough")]
    [TestCase(2, TestName = "A_ring_that_the_quota_of_its_domain_refused_has_a_turn_when_others_have_returned_enough")]
    public async Task A_refused_ring_has_a_turn(int rings)
    {
        using Worker worker = new("test");
        await worker.InvokeAsync(() =>
        {
            WorkerBuffers buffers = worker.Buffers;
            int half = (int)(Worker.BufferBytes / 2), piece = half / 16;
            IdleWork waiter = new();
            RingBufferQuota other = new(buffers, new IdleWork(), 1), waiting = new(buffers, waiter, 2);
            RingBufferQuota stalled = rings == 1 ? waiting : new RingBufferQuota(buffers, new IdleWork(), 2);
            Assert.That(other.TryRent(half, out Memory<byte> most), Is.True);
            int held = rings == 1 ? piece : half / 4;
            Assert.That(stalled.TryRent(held, out _), Is.True);
            int wanted = rings == 1 ? piece : half / 2;
            Assert.That(waiting.TryRent(wanted, out _), Is.False);
            Assert.That(waiter.IsScheduled, Is.False);
            other.Return(most);
            Assert.That(waiter.IsScheduled, Is.True);
            Assert.That(waiting.TryRent(wanted, out _), Is.True);
            return Task.FromResult(true);
        });
    }

    private static List<Memory<byte>> RentAll(RingBufferQuota share)
    {
        List<Memory<byte>> held = [];
        while (share.TryRent(Unit, out Memory<byte> buffer)) held.Add(buffer);
        return held;
    }
}
