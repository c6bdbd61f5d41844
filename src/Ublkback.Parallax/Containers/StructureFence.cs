using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Containers;

/// <summary>
/// The number that raises whoever takes the lock <c>structure</c> of a store in a pool, and that each change of the
/// store's keys names. Any thread; blocks it.
/// </summary>
internal static class StructureFence
{
    /// <summary>The object that has the lock and the number.</summary>
    public static RadosName Object { get; } = new("vdi.store");

    /// <summary>Its second copy, which has the number too.</summary>
    public static RadosName Copy { get; } = new("vdi.store.copy");

    /// <summary>The attribute that has the number.</summary>
    public static ReadOnlySpan<byte> Attribute => "fence.structure\0"u8;
}
