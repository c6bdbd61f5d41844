using Ublkback.Rados.Bindings;
using Ublkback.Rados.Pools;

namespace Ublkback.Rados.Locks;

/// <summary>
/// A lock that is renewed until it is disposed, and ends by itself some time after this process. Any thread.
/// </summary>
/// <remarks>
/// Who was stopped for longer than that has lost it, and may not know it yet. So it protects nothing by itself: a deed
/// needs a number that the OSD compares, or a look afterwards whether it was still held.
/// </remarks>
public sealed class RadosLease : IDisposable
{
    /// <summary>How long it outlives its holder.</summary>
    public static readonly TimeSpan Time = TimeSpan.FromSeconds(30);

    private readonly RadosPool _pool;
    private readonly Timer _renewal;
    private readonly Action? _onLost;
    private readonly Lock _gate = new();
    private bool _isOver;
    private int _isLost;

    private RadosLease(RadosPool pool, RadosLockName which, bool isShared, Action? onLost)
    {
        _pool = pool;
        Which = which;
        _onLost = onLost;
        // Once at a time: a cluster that does not answer holds one thread, not one more each time.
        _renewal = new Timer(_ => Renew(isShared), null, Time / 3, Timeout.InfiniteTimeSpan);
    }

    /// <summary>The lock.</summary>
    public RadosLockName Which { get; }

    /// <summary>Whether it is known that it was not renewed in time.</summary>
    public bool IsLost => Volatile.Read(ref _isLost) != 0;

    /// <summary>Takes a lock; null when somebody else holds it.</summary>
    /// <param name="pool">The pool.</param>
    /// <param name="name">The object.</param>
    /// <param name="lockName">The lock.</param>
    /// <param name="isShared">Whether others may share it.</param>
    /// <param name="onLost">Is called, once, when it was not renewed in time.</param>
    /// <exception cref="RadosException">It cannot be asked for.</exception>
    public static RadosLease? TryTake(
        RadosPool pool, RadosName name, string lockName, bool isShared, Action? onLost = null)
    {
        RadosLockName which = new(name, lockName, Guid.NewGuid().ToString("n"));
        return RadosLocks.TryTake(pool, which, isShared, Time) ? new RadosLease(pool, which, isShared, onLost) : null;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate) _isOver = true;
        _renewal.Dispose();
        RadosLocks.Release(_pool, Which);
    }

    private void Renew(bool isShared)
    {
        lock (_gate)
        {
            if (_isOver) return;
            try
            {
                if (!RadosLocks.Renew(_pool, Which, isShared, Time))
                {
                    _isOver = true;
                    Volatile.Write(ref _isLost, 1);
                }
            }
            catch (RadosException)
            {
                // The next time.
            }

            if (!_isOver)
            {
                _renewal.Change(Time / 3, Timeout.InfiniteTimeSpan);
                return;
            }
        }

        _onLost?.Invoke();
    }
}
