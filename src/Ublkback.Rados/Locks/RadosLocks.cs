using System.Text;
using Ublkback.Linux.Kernel;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Pools;

namespace Ublkback.Rados.Locks;

/// <summary>
/// Locks on objects, which the OSDs keep. A lock alone stops nobody from writing. Any thread; blocks it.
/// </summary>
public static unsafe class RadosLocks
{
    private const string Tag = "ublkback"; // who shares a lock has to name the same
    private const int ListBytes = 64 << 10;

    /// <summary>Renews a lock that we hold; false when we do not hold it any more.</summary>
    /// <exception cref="RadosException">It cannot be asked for.</exception>
    public static bool Renew(RadosPool pool, RadosLockName which, bool isShared, TimeSpan lease)
    {
        int result = Lock(pool, which, isShared, lease, LibRados.MustRenew);
        return result is not (-LinuxError.Busy or -LinuxError.NoEntry)
            && RadosException.Check(result, $"the lock of object {which.On} cannot be renewed") == 0;
    }

    /// <summary>Takes a lock, or renews it; false when somebody else holds it.</summary>
    /// <param name="pool">The pool.</param>
    /// <param name="which">The lock.</param>
    /// <param name="isShared">Whether others may share it.</param>
    /// <param name="lease">How long it is held unless it is renewed; null for ever.</param>
    /// <exception cref="RadosException">It cannot be asked for.</exception>
    public static bool TryTake(RadosPool pool, RadosLockName which, bool isShared, TimeSpan? lease)
    {
        int result = Lock(pool, which, isShared, lease, LibRados.MayRenew);
        return result != -LinuxError.Busy && RadosException.Check(result, $"object {which.On} cannot be locked") == 0;
    }

    /// <summary>Gives a lock back. What fails does so silently: the lock is gone, or its lease ends.</summary>
    public static void Release(RadosPool pool, RadosLockName which)
    {
        using IDisposable? wait = pool.Enter("the lock of", which.On);
        fixed (byte* at = which.On.Bytes) _ = LibRados.Unlock(pool.Handle, at, which.Name, which.Cookie);
    }

    /// <summary>Takes a lock away from somebody.</summary>
    public static void Break(RadosPool pool, RadosName name, string lockName, RadosLocker locker)
    {
        using IDisposable? wait = pool.Enter("the lock of", name);
        fixed (byte* at = name.Bytes)
        {
            int result = LibRados.BreakLock(pool.Handle, at, lockName, locker.Client, locker.Cookie);
            if (result != -LinuxError.NoEntry)
                RadosException.Check(result, $"the lock of object {name} cannot be broken");
        }
    }

    /// <summary>Who holds a lock, and whether each alone.</summary>
    /// <exception cref="RadosException">It cannot be asked for.</exception>
    public static (IReadOnlyList<RadosLocker> Lockers, bool IsExclusive) List(
        RadosPool pool, RadosName name, string lockName)
    {
        byte[] clients = new byte[ListBytes], cookies = new byte[ListBytes], addresses = new byte[ListBytes],
            tag = new byte[ListBytes];
        nuint tagLength = ListBytes, clientsLength = ListBytes, cookiesLength = ListBytes, addressesLength = ListBytes;
        nint count;
        int exclusive;
        using IDisposable? wait = pool.Enter("the lockers of", name);
        fixed (byte* at = name.Bytes, c = clients, k = cookies, a = addresses, t = tag)
        {
            count = LibRados.ListLockers(
                pool.Handle, at, lockName, out exclusive, t, ref tagLength, c, ref clientsLength, k, ref cookiesLength,
                a, ref addressesLength);
        }

        if (count == -LinuxError.NoEntry) return ([], false);
        RadosException.Check((int)count, $"the lockers of object {name} cannot be listed");
        string[] client = Split(clients, count), cookie = Split(cookies, count), address = Split(addresses, count);
        return ([.. Enumerable.Range(0, (int)count).Select(i => new RadosLocker(client[i], cookie[i], address[i]))],
            exclusive != 0);
    }

    private static int Lock(RadosPool pool, RadosLockName which, bool isShared, TimeSpan? lease, byte flags)
    {
        using IDisposable? wait = pool.Enter("the lock of", which.On);
        long* duration = stackalloc long[2]; // struct timeval
        (duration[0], duration[1]) = ((long)(lease ?? default).TotalSeconds, 0);
        long* limit = lease is null ? null : duration;
        fixed (byte* at = which.On.Bytes)
        {
            return pool.Note(isShared
                ? LibRados.LockShared(pool.Handle, at, which.Name, which.Cookie, Tag, "", limit, flags)
                : LibRados.LockExclusive(pool.Handle, at, which.Name, which.Cookie, "", limit, flags));
        }
    }

    private static string[] Split(byte[] list, nint count) => Encoding.UTF8.GetString(list).Split('\0')[..(int)count];
}
