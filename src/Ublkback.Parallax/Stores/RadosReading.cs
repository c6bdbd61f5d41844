using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Stores;

/// <summary>That a VDI in a pool is read, and nobody writes it meanwhile. Any thread; blocks it.</summary>
internal static class RadosReading
{
    /// <summary>Takes the lock that readers share.</summary>
    /// <exception cref="ImageInUseException">Somebody writes it, or deletes it.</exception>
    public static RadosLease Take(RadosPool pool, RadosName first, RadosClaim claim)
    {
        RadosLease? lease;
        while ((lease = RadosLease.TryTake(
            pool, first, WriterLock.LockName, isShared: true, () => claim.Warn(
                $"object {first} of pool {pool.Name}: this process did not answer for so long that VDI {claim.Vdi} may "
                + "be written by another; nothing more is read"))) is null)
            WriterTakeover.Replace(pool, first, claim);
        if (RadosDeletion.IsThere(pool, first) && !RadosDeletion.IsDeleted(pool, first, out _)) return lease;
        lease.Dispose();
        throw new ImageInUseException($"VDI {claim.Vdi} is being deleted");
    }
}
