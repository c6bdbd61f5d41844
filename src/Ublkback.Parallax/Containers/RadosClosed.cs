using System.Security.Cryptography;
using System.Text;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Format;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Containers;

/// <summary>Reads and restores a VDI in a pool that no process holds open. Any thread; blocks it.</summary>
internal static class RadosClosed
{
    /// <summary>
    /// Returns the VDI's epoch and a checksum of its heads. The text differs once a process has opened the VDI for
    /// writing or written a head. Null if the first object is damaged.
    /// </summary>
    /// <exception cref="RadosException">It cannot be read.</exception>
    public static string? ReadState(RadosPool pool, uint vdi)
    {
        RadosName first = new RadosSegments(vdi).First;
        byte[]? epoch = pool.GetAttribute(first, WriterLock.EpochAttribute);
        if (epoch is null || FencingNumber.Read(epoch) is null) return null;
        byte[] blocks = new byte[VdiFormat.OffsetOf(VdiFormat.HolderBlock)];
        _ = pool.Read(first, 0, blocks);
        return $"{Encoding.ASCII.GetString(epoch)} {Convert.ToHexString(SHA256.HashData(blocks))}";
    }

    /// <summary>Returns the epoch that a state begins with, as the attribute of objects has it.</summary>
    public static byte[] EpochOf(string state) => Encoding.ASCII.GetBytes(state.Split(' ')[0]);

    /// <summary>
    /// Recreates the first object of a VDI from its copy, under the writer's lock. The OSD refuses this if the lock is
    /// lost. So a process that was stopped meanwhile overwrites nothing, and brings no deleted VDI back.
    /// </summary>
    /// <param name="pool">The pool.</param>
    /// <param name="segments">The VDI's objects.</param>
    /// <param name="check">Throws if the VDI may have been deleted or restored meanwhile.</param>
    /// <exception cref="RadosException">It cannot be created.</exception>
    public static void RestoreFirst(RadosPool pool, RadosSegments segments, Action check)
    {
        // That makes an empty object. Whoever deletes the VDI removes it, with the lock.
        using RadosLease? lease = RadosLease.TryTake(pool, segments.First, WriterLock.LockName, isShared: false);
        if (lease is null) return; // somebody uses it
        try
        {
            check();
            Restore(pool, segments, lease.Which);
        }
        finally
        {
            _ = RadosDeletion.IsThere(pool, segments.First); // an empty one goes
        }
    }

    private static void Restore(RadosPool pool, RadosSegments segments, RadosLockName held)
    {
        byte[] blocks = new byte[VdiFormat.OffsetOf(VdiFormat.FirstMarkBlock)];
        if (pool.GetAttribute(segments.Copy, WriterLock.EpochAttribute) is not byte[] epoch
            || pool.Read(segments.Copy, 0, blocks) < blocks.Length)
            return;
        using RadosWrite write = new RadosWrite().IfHeld(held).IfAttribute(WriterLock.EpochAttribute, [])
            .IfZeros(0, VdiFormat.BlockSize).SetAttribute(WriterLock.EpochAttribute, epoch).Write(0, blocks);
        foreach (KeyValuePair<string, string> range in pool.GetKeys(segments.Copy, RadosContainer.RangePrefix))
            write.SetKey(range.Key, range.Value);
        int result = pool.TryChange(segments.First, write);
        // Another process was faster, or has deleted the VDI.
        if (result is -LinuxError.Busy or -LinuxError.Cancelled or -LinuxError.NoEntry) return;
        RadosException.Check(result, $"object {segments.First} cannot be made");
    }
}
