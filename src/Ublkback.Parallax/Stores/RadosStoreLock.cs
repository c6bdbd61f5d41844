using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Containers;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Stores;

/// <summary>
/// A lock of a store in a pool: a lease, and the number that was raised when it was taken. Changes that it protects
/// name the number, so the lease may end while we are stopped: then they are refused. Any thread; blocks it.
/// </summary>
internal sealed class RadosStoreLock : IStoreLock
{
    private readonly RadosPool _pool;
    private readonly RadosLease _lease;
    private readonly byte[] _attribute;
    private readonly Action _onDisposed;

    private RadosStoreLock(RadosPool pool, RadosLease lease, byte[] attribute, byte[] number, Action onDisposed)
    {
        _pool = pool;
        _lease = lease;
        _attribute = attribute;
        Number = number;
        _onDisposed = onDisposed;
    }

    /// <summary>The number.</summary>
    public byte[] Number { get; }

    /// <summary>Takes a lock; null when somebody else has it.</summary>
    /// <param name="pool">The pool.</param>
    /// <param name="name">The lock.</param>
    /// <param name="attribute">Where its number is.</param>
    /// <param name="onDisposed">Is called when it has been given back.</param>
    /// <exception cref="RadosException">It cannot be asked for.</exception>
    public static RadosStoreLock? TryTake(RadosPool pool, string name, byte[] attribute, Action onDisposed)
    {
        if (RadosLease.TryTake(pool, StructureFence.Object, name, isShared: false) is not { } lease) return null;
        try
        {
            byte[]? number = FencingNumber.TryRaise(
                pool, lease.Which, StructureFence.Copy, attribute, mustBeKnown: false, null);
            if (number is not null) return new RadosStoreLock(pool, lease, attribute, number, onDisposed);
        }
        catch
        {
            lease.Dispose();
            throw;
        }

        lease.Dispose();
        return null;
    }

    /// <summary>Throws when a change that names the number was not made.</summary>
    /// <exception cref="TargetException">Somebody else has had the lock.</exception>
    /// <exception cref="RadosException">It was not made for another reason.</exception>
    public void Need(int result)
    {
        if (result == -LinuxError.Cancelled) Check();
        RadosException.Check(result, $"object {StructureFence.Object} of pool {_pool.Name} cannot be changed");
    }

    public void Check()
    {
        byte[]? now = _pool.GetAttribute(StructureFence.Object, _attribute);
        if (now is not null && now.AsSpan().SequenceEqual(Number)) return;
        throw new TargetException(
            $"this process did not answer for so long that another has changed rados:{_pool.Name} meanwhile; it goes "
            + "on no further",
            "try again");
    }

    public void Dispose()
    {
        _lease.Dispose();
        _onDisposed();
    }
}
