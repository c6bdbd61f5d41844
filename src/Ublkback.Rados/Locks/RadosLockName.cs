using Ublkback.Rados.Pools;

namespace Ublkback.Rados.Locks;

/// <summary>A lock: of which object, by which name, and by which cookie we hold it.</summary>
/// <param name="On">The object.</param>
/// <param name="Name">The lock.</param>
/// <param name="Cookie">Tells holders apart that share a client.</param>
public readonly record struct RadosLockName(RadosName On, string Name, string Cookie);
