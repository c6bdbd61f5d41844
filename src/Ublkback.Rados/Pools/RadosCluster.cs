using System.Globalization;
using Ublkback.Block;
using Ublkback.Linux.Messages;
using Ublkback.Rados.Bindings;

namespace Ublkback.Rados.Pools;

/// <summary>
/// A connection to a Ceph cluster. All VDIs in this process that use the cluster as the same user share one; each image
/// of RBD has its own, since Ceph shuts a whole connection out when another host takes one image over. Any thread.
/// </summary>
public sealed class RadosCluster : IDisposable
{
    private const string ConnectSeconds = "10";
    private const int MaxLooks = 4;

    private static readonly (string, string)[] Options =
    [
        ("client_mount_timeout", ConnectSeconds),
        ("rbd_cache", "false"), // what was answered outlives this process
        ("rbd_skip_partial_discard", "false"), // what is discarded becomes zeros
    ];

    private static readonly Lock Gate = new();
    private static readonly Dictionary<RadosAddress, Lazy<RadosCluster>> Known = [];

    private readonly RadosAddress? _key; // null when it is not shared
    private int _users = 1;
    private int _looks;

    private RadosCluster(RadosAddress? key, nint handle)
    {
        _key = key;
        Handle = handle;
    }

    /// <summary>The handle of librados.</summary>
    internal nint Handle { get; }

    /// <summary>
    /// Connects, unless this process is connected. Blocks the thread, and those that want the same cluster; others
    /// connect beside it. To be disposed by each who called it.
    /// </summary>
    /// <param name="address">Any pool of the cluster.</param>
    /// <exception cref="TargetException">It cannot be reached; the message says why.</exception>
    public static RadosCluster Share(RadosAddress address)
    {
        ArgumentNullException.ThrowIfNull(address);
        RadosAddress key = address with { Pool = "" };
        while (true)
        {
            Lazy<RadosCluster>? known;
            lock (Gate)
            {
                if (!Known.TryGetValue(key, out known))
                {
                    known = new Lazy<RadosCluster>(() => new RadosCluster(key, Open(address)) { _users = 0 });
                    Known[key] = known;
                }
            }

            if (TryUse(key, known) is { } cluster) return cluster;
        }
    }

    /// <summary>Makes a connection that is not shared. Blocks the thread.</summary>
    /// <exception cref="TargetException">The cluster cannot be reached; the message says why.</exception>
    public static RadosCluster Connect(RadosAddress address)
    {
        ArgumentNullException.ThrowIfNull(address);
        return new RadosCluster(null, Open(address));
    }

    /// <summary>
    /// The cluster has shut this connection out. Those who have it keep it, and it is of no use to them; who wants one
    /// from now on gets a new one.
    /// </summary>
    public void Forget()
    {
        lock (Gate) ForgetLocked();
    }

    /// <summary>
    /// Does something that is done now and then and may be left out, so that a cluster that does not answer keeps only
    /// a few threads waiting.
    /// </summary>
    public void Look(Action action)
    {
        ArgumentNullException.ThrowIfNull(action);
        try
        {
            if (Interlocked.Increment(ref _looks) <= MaxLooks) action();
        }
        finally
        {
            Interlocked.Decrement(ref _looks);
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (Gate)
        {
            if (--_users > 0) return;
            ForgetLocked();
        }

        _ = LibRados.FlushWatches(Handle);
        LibRados.Shutdown(Handle);
    }

    // Null when it has ended meanwhile.
    private static RadosCluster? TryUse(RadosAddress key, Lazy<RadosCluster> known)
    {
        try
        {
            RadosCluster cluster = known.Value; // one connects, the others wait for it
            lock (Gate)
            {
                if (!Known.TryGetValue(key, out Lazy<RadosCluster>? now) || now != known) return null;
                cluster._users++;
                return cluster;
            }
        }
        catch (TargetException)
        {
            lock (Gate)
            {
                if (Known.TryGetValue(key, out Lazy<RadosCluster>? now) && now == known) Known.Remove(key);
            }

            throw;
        }
    }

    private void ForgetLocked()
    {
        if (_key is not null && Known.TryGetValue(_key, out Lazy<RadosCluster>? now) && now.IsValueCreated
            && now.Value == this)
            Known.Remove(_key);
    }

    private static nint Open(RadosAddress address)
    {
        using WaitNotice? wait = WaitNotice.Begin(() => $"the Ceph cluster of {address.Where}");
        try
        {
            RadosException.Check(LibRados.Create(out nint cluster, address.Id), "a client of Ceph cannot be made");
            try
            {
                RadosException.Check(
                    LibRados.ReadConfiguration(cluster, address.Configuration),
                    $"no configuration of Ceph can be read in {address.Where}");
                foreach ((string option, string value) in OptionsFor(address))
                    RadosException.Check(LibRados.Configure(cluster, option, value), $"{option} cannot be set");
                RadosException.Check(
                    LibRados.Connect(cluster), $"the Ceph cluster of {address.Where} cannot be reached");
                return cluster;
            }
            catch
            {
                LibRados.Shutdown(cluster);
                throw;
            }
        }
        catch (RadosException failure)
        {
            throw new TargetException(failure.Message, failure);
        }
        catch (DllNotFoundException failure)
        {
            throw new TargetException(
                "librados.so.2 is not on this host", "install it (Debian: apt-get install librados2)", failure);
        }
    }

    private static (string Option, string Value)[] OptionsFor(RadosAddress address)
    {
        if (address.Patience is not { } patience) return Options;
        string seconds = patience.TotalSeconds.ToString("0", CultureInfo.InvariantCulture);
        return
        [
            .. Options, ("rados_osd_op_timeout", seconds), ("rados_mon_op_timeout", seconds),
            ("client_mount_timeout", seconds),
        ];
    }
}
