using NUnit.Framework;
using Ublkback.Linux;

namespace Ublkback.Tests.Linux;

public sealed class BufferShareTests
{
    private const int Unit = 64 << 10;
    private const int Total = 1024;

    [Test]
    public void Users_that_give_nothing_back_leave_some_to_the_rest([Values(1, 2, 10, 20)] int stalled)
    {
        using Worker worker = new("test");
        using SharedBuffers buffers = new(worker, (long)Total * Unit);
        for (int i = 0; i < stalled; i++) RentAll(new BufferShare(buffers, new IdleWork()));

        Assert.That(buffers.FreeBytes, Is.GreaterThanOrEqualTo((long)(Total * Math.Pow(8.0 / 9, stalled)) * Unit));
        Assert.That(new BufferShare(buffers, new IdleWork()).TryRent(Unit, out _), Is.True);
    }

    [Test]
    public void One_that_gives_back_may_have_as_much_again()
    {
        using Worker worker = new("test");
        using SharedBuffers buffers = new(worker, (long)Total * Unit);
        BufferShare share = new(buffers, new IdleWork());
        List<Memory<byte>> held = RentAll(share);
        Assert.That(held, Has.Count.EqualTo(Total / 9));
        foreach (Memory<byte> buffer in held) share.Return(buffer);

        Assert.That(RentAll(share), Has.Count.EqualTo(Total / 9));
    }

    [Test]
    public void Who_withdraws_is_in_nobodys_way()
    {
        using Worker worker = new("test");
        using SharedBuffers buffers = new(worker, Unit);
        BufferShare holder = new(buffers, new IdleWork());
        Assert.That(holder.TryRent(Unit, out Memory<byte> all), Is.True);
        BufferShare first = new(buffers, new IdleWork());
        BufferShare second = new(buffers, new IdleWork());
        Assert.That(first.TryRent(Unit, out _) || second.TryRent(Unit, out _), Is.False);

        first.Withdraw();
        holder.Return(all);

        Assert.That(second.TryRent(Unit, out _), Is.True);
    }

    private static List<Memory<byte>> RentAll(BufferShare share)
    {
        List<Memory<byte>> held = [];
        while (share.TryRent(Unit, out Memory<byte> buffer)) held.Add(buffer);
        return held;
    }
}
