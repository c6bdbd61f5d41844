using Ublkback.Block;
using Ublkback.Linux.Messages;
using Ublkback.Parallax.Containers;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Stores;

/// <summary>Asks the process that has a VDI in a pool open for writing. Any thread; blocks it.</summary>
internal static class RadosDoors
{
    private static readonly TimeSpan TaskTime = TimeSpan.FromHours(1); // for compacting, and collecting

    /// <summary>Gives the reply; null when no process has the VDI, or it does not answer.</summary>
    /// <exception cref="TargetException">The reply did not come.</exception>
    public static byte[]? TryAsk(RadosPool pool, uint vdi, byte[] request, TimeSpan? patience)
    {
        RadosName first = new RadosSegments(vdi).First;
        if (WriterTakeover.Find(pool, first) is not RadosLocker holder || !WriterTakeover.Answers(pool, holder))
            return null;
        using WaitNotice? wait = WaitNotice.Begin(() => $"the process at {holder.Address} that has the VDI");
        (IReadOnlyList<byte[]> answers, int silent) =
            RadosWatch.Notify(pool, WriterTakeover.DoorOf(holder.Cookie), request, patience ?? TaskTime);
        if (silent > 0)
            throw new TargetException(
                "the process that holds the VDI did not reply",
                "check whether the command was carried out, and try again");
        return answers is [byte[] reply, ..] ? reply : null;
    }
}
