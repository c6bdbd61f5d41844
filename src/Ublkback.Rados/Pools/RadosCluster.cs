using Ublkback.Block;
using Ublkback.Rados.Bindings;

namespace Ublkback.Rados.Pools;

/// <summary>
/// A connection to a Ceph cluster, which all in this process share who use the cluster as the same user. Any thread.
/// </summary>
public sealed class RadosCluster : IDisposable
{
    private static readonly (string, string)[] Options =
    [
        ("client_mount_timeout", "10"), // seconds
        ("rbd_cache", "false"), // what was answered outlives this process
        ("rbd_skip_partial_discard", "false"), // what is discarded becomes zeros
    ];

    private static readonly Lock Gate = new();
    private static readonly Dictionary<(string?, string?), RadosCluster> Known = [];

    private readonly (string? Configuration, string? Id) _key;
    private int _users = 1;

    private RadosCluster((string?, string?) key, nint handle)
    {
        _key = key;
        Handle = handle;
    }

    /// <summary>The handle of librados.</summary>
    internal nint Handle { get; }

    /// <summary>
    /// Connects, unless this process is connected. Blocks the thread. To be disposed by each who called it.
    /// </summary>
    /// <exception cref="TargetException">It cannot be reached; the message says why.</exception>
    public static RadosCluster Share(string? configuration, string? id)
    {
        lock (Gate)
        {
            if (Known.TryGetValue((configuration, id), out RadosCluster? known))
            {
                known._users++;
                return known;
            }

            return Known[(configuration, id)] = new RadosCluster((configuration, id), Connect(configuration, id));
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (Gate)
        {
            if (--_users > 0) return;
            Known.Remove(_key);
        }

        _ = LibRados.FlushWatches(Handle);
        LibRados.Shutdown(Handle);
    }

    private static nint Connect(string? configuration, string? id)
    {
        string where = configuration ?? "the usual places";
        try
        {
            RadosException.Check(LibRados.Create(out nint cluster, id), "a client of Ceph cannot be made");
            try
            {
                RadosException.Check(
                    LibRados.ReadConfiguration(cluster, configuration),
                    $"no configuration of Ceph can be read in {where}");
                foreach ((string option, string value) in Options)
                    RadosException.Check(LibRados.Configure(cluster, option, value), $"{option} cannot be set");
                RadosException.Check(LibRados.Connect(cluster), $"the Ceph cluster of {where} cannot be reached");
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
}
