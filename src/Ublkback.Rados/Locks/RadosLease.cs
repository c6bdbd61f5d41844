using Ublkback.Rados.Bindings;
using Ublkback.Rados.Pools;

namespace Ublkback.Rados.Locks;

/// <summary>
/// A lock that is renewed until it is disposed, and ends by itself some time after this process. Any thread.
/// </summary>
public sealed class RadosLease : IDisposable
{
    /// <summary>How long it outlives its holder.</summary>
    public static readonly TimeSpan Time = TimeSpan.FromSeconds(30);

    private readonly RadosPool _pool;
    private readonly RadosLockName _which;
    private readonly Timer _renewal;
    private readonly Lock _gate = new();
    private bool _isOver;

    private RadosLease(RadosPool pool, RadosLockName which, bool isShared)
    {
        _pool = pool;
        _which = which;
        _renewal = new Timer(_ => Renew(isShared), null, Time / 3, Time / 3);
    }

    /// <summary>Takes a lock; null when somebody else holds it.</summary>
    /// <exception cref="RadosException">It cannot be asked for.</exception>
    public static RadosLease? TryTake(RadosPool pool, RadosName name, string lockName, bool isShared)
    {
        RadosLockName which = new(name, lockName, Guid.NewGuid().ToString("n"));
        return RadosLocks.TryTake(pool, which, isShared, Time) ? new RadosLease(pool, which, isShared) : null;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate) _isOver = true;
        _renewal.Dispose();
        RadosLocks.Release(_pool, _which);
    }

    private void Renew(bool isShared)
    {
        lock (_gate)
        {
            if (_isOver) return;
            try
            {
                RadosLocks.TryTake(_pool, _which, isShared, Time);
            }
            catch (RadosException)
            {
                // The next time; who relied on it notices when it does something.
            }
        }
    }
}
