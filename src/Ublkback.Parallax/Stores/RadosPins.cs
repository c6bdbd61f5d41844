using System.Globalization;
using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Stores;

/// <summary>
/// Keeps snapshots in a pool from being deleted while they are read: by leases <c>snapshot.NUMBER</c> of the VDI's
/// first object, and by the marks of <see cref="RadosDeletion"/>. Any thread; blocks it.
/// </summary>
internal static class RadosPins
{
    /// <summary>Keeps a snapshot: the lock first, and then the look for the mark.</summary>
    /// <exception cref="TargetException">It is being deleted.</exception>
    public static IDisposable Pin(RadosPool pool, uint vdi, ulong snapshot, Action<string> warn)
    {
        RadosName first = new RadosSegments(vdi).First;
        RadosLease? lease = RadosLease.TryTake(
            pool, first, LockOf(snapshot), isShared: true, () => warn(
                $"object {first} of pool {pool.Name}: this process did not answer for so long that the snapshot it "
                + "reads may be deleted; if it is, reads fail"));
        if (lease is not null && RadosDeletion.IsThere(pool, first)
            && !RadosDeletion.IsDeleted(pool, first, snapshot)) return lease;
        lease?.Dispose();
        throw new TargetException("the snapshot is being deleted", "if that was broken off, delete it again");
    }

    /// <summary>
    /// Lets nobody keep it: the mark first, and then the look whether anybody does. Null when somebody does.
    /// </summary>
    public static IDisposable? TryForbid(RadosPool pool, WriterLock? owner, uint vdi, ulong snapshot)
    {
        if (owner is null) throw new ImageInUseException("the VDI is being closed", "try again");
        RadosName first = new RadosSegments(vdi).First;
        if (!RadosDeletion.TryMark(pool, owner, first, snapshot))
        {
            return owner.IsShutOut
                ? throw new ImageInUseException("another process has the VDI now", "try again")
                : null;
        }

        EndingAction mark = new(() => RadosDeletion.Unmark(pool, owner, first, snapshot));
        bool isForbidden = false;
        try
        {
            using RadosLease? lease = RadosLease.TryTake(pool, first, LockOf(snapshot), isShared: false);
            isForbidden = lease is not null;
            return isForbidden ? mark : null;
        }
        finally
        {
            if (!isForbidden) mark.Dispose();
        }
    }

    private static string LockOf(ulong snapshot) =>
        string.Create(CultureInfo.InvariantCulture, $"snapshot.{snapshot:x}");
}
