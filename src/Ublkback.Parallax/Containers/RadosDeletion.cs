using System.Globalization;
using System.Text;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Format;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Containers;

/// <summary>
/// Marks that say that a VDI or a snapshot in a pool is being deleted: attributes of the VDI's first object. Any
/// thread; blocks it.
/// </summary>
/// <remarks>
/// Who deletes sets the mark first, and looks then whether anybody uses it; who wants to use it takes the lock first,
/// and looks then for the mark. So not both go on, however long either was stopped between the two. The mark of a VDI
/// is void as soon as the number of the store was raised, since its name cannot be removed then; that of a snapshot
/// stays until the deletion has ended, since what was under way may still come into the log.
/// </remarks>
internal static class RadosDeletion
{
    /// <summary>The attribute that says that a VDI is being deleted: under which number of the store.</summary>
    public static ReadOnlySpan<byte> Attribute => "deleted\0"u8;

    /// <summary>Whether a VDI is being deleted.</summary>
    /// <param name="pool">The pool.</param>
    /// <param name="first">The VDI's first object.</param>
    /// <param name="mark">The mark, which may be void; empty when there is none.</param>
    public static bool IsDeleted(RadosPool pool, RadosName first, out byte[] mark)
    {
        mark = pool.GetAttribute(first, Attribute) ?? [];
        if (mark.Length == 0) return false;
        ulong now = Math.Max(
            FencingNumber.Read(pool.GetAttribute(StructureFence.Object, StructureFence.Attribute)) ?? 0,
            FencingNumber.Read(pool.GetAttribute(StructureFence.Copy, StructureFence.Attribute)) ?? 0);
        return now <= FencingNumber.Read(mark);
    }

    /// <summary>Whether a snapshot, or its VDI, is being deleted.</summary>
    public static bool IsDeleted(RadosPool pool, RadosName first, ulong snapshot) =>
        IsDeleted(pool, first, out _) || pool.GetAttribute(first, AttributeOf(snapshot)) is { Length: > 0 };

    /// <summary>Marks a VDI that we have open; false when another has it now.</summary>
    public static bool TryMark(RadosPool pool, WriterLock owner, RadosName first, byte[] structure)
    {
        using RadosWrite write = new RadosWrite().IfHeld(owner.Lock)
            .IfAttribute(WriterLock.EpochAttribute, owner.Epoch).SetAttribute(Attribute, structure);
        int result = pool.TryChange(first, write, isForced: true);
        return result != -LinuxError.Busy && owner.IsTaken(result, first);
    }

    /// <summary>
    /// Marks a snapshot of a VDI that we have open; false when another has it now, or it is marked already.
    /// </summary>
    public static bool TryMark(RadosPool pool, WriterLock owner, RadosName first, ulong snapshot)
    {
        byte[] attribute = AttributeOf(snapshot), old = pool.GetAttribute(first, attribute) ?? [];
        if (owner.Epoch.SequenceEqual(old)) return false;
        using RadosWrite write = new RadosWrite().IfAttribute(WriterLock.EpochAttribute, owner.Epoch)
            .IfAttribute(attribute, old).SetAttribute(attribute, owner.Epoch);
        return owner.IsTaken(pool.TryChange(first, write, isForced: true), first);
    }

    /// <summary>Takes the mark of a VDI away, if it is ours.</summary>
    public static void Unmark(RadosPool pool, RadosName first, ReadOnlySpan<byte> structure)
    {
        using RadosWrite write = new RadosWrite().IfAttribute(Attribute, structure).RemoveAttribute(Attribute);
        _ = pool.TryChange(first, write, isForced: true); // the object may be gone
    }

    /// <summary>Takes the mark of a snapshot away, if it is ours.</summary>
    public static void Unmark(RadosPool pool, WriterLock owner, RadosName first, ulong snapshot)
    {
        byte[] attribute = AttributeOf(snapshot);
        using RadosWrite write = new RadosWrite().IfAttribute(attribute, owner.Epoch).RemoveAttribute(attribute);
        _ = pool.TryChange(first, write, isForced: true); // as above
    }

    /// <summary>
    /// Whether the first object of a VDI is there. Taking a lock of one that was removed makes an empty one, which is
    /// removed here.
    /// </summary>
    /// <exception cref="RadosException">It cannot be looked at.</exception>
    public static bool IsThere(RadosPool pool, RadosName first)
    {
        if (pool.Measure(first) > 0) return true;
        using RadosWrite write = new RadosWrite().IfAttribute(WriterLock.EpochAttribute, [])
            .IfZeros(0, VdiFormat.BlockSize).Remove();
        _ = pool.TryChange(first, write, isForced: true); // or it is not empty any more
        return false;
    }

    private static byte[] AttributeOf(ulong snapshot) =>
        Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"deleted.{snapshot:x}\0"));
}
