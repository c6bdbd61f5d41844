using Ublkback.Linux.Messages;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Requests;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Stores;

/// <summary>Asks the process that has a VDI in a pool open for writing. Any thread; blocks it.</summary>
internal static class RadosDoors
{
    private static readonly TimeSpan TaskTime = TimeSpan.FromHours(1); // for compacting, and collecting

    /// <summary>Sends a request, once. It is not sent to a process that does not answer.</summary>
    /// <exception cref="RadosException">It was not sent, because the pool cannot be read.</exception>
    public static VdiDelivery TryAsk(RadosPool pool, uint vdi, byte[] request, TimeSpan? patience)
    {
        RadosName first = new RadosSegments(vdi).First;
        if (WriterTakeover.Find(pool, first) is not RadosLocker holder || !WriterTakeover.Answers(pool, holder))
            return VdiDelivery.NoHolder;
        using WaitNotice? wait = WaitNotice.Begin(() => $"the process at {holder.Address} that has the VDI");
        Guid id = Guid.NewGuid();
        try
        {
            (IReadOnlyList<byte[]> answers, int silent) = RadosWatch.Notify(
                pool, WriterTakeover.DoorOf(holder.Cookie), AnsweredRequests.Seal(id, request), patience ?? TaskTime);
            if (answers is [byte[] reply, ..]) return VdiDelivery.Replied(reply);
            if (silent > 0) return VdiDelivery.Lost("it did not answer in time");
            return WriterLock.HasClosedWithout(pool, first, holder, id) // no reply came, and nobody is there any more
                ? VdiDelivery.Postponed
                : VdiDelivery.Lost("it ended, or was replaced");
        }
        catch (RadosException failure)
        {
            return VdiDelivery.Lost(failure.Message);
        }
    }
}
