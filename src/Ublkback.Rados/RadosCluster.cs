using Ublkback.Block;

namespace Ublkback.Rados;

/// <summary>A connection to a Ceph cluster, which all in this process share who use the cluster as the same user. Any thread.</summary>
public sealed class RadosCluster : IDisposable
{
    private const string PatienceSeconds = "10";

    private static readonly Lock _gate = new();
    private static readonly Dictionary<(string?, string?), RadosCluster> _known = [];

    private readonly (string? Configuration, string? Id) _key;
    private int _users = 1;

    private RadosCluster((string?, string?) key, nint handle)
    {
        _key = key;
        Handle = handle;
    }

    /// <summary>The handle of librados.</summary>
    internal nint Handle { get; }

    /// <summary>Connects, unless this process is connected. Blocks the thread. To be disposed by each who called it.</summary>
    /// <exception cref="TargetException">It cannot be reached; the message says why.</exception>
    public static RadosCluster Share(string? configuration, string? id)
    {
        lock (_gate)
        {
            if (_known.TryGetValue((configuration, id), out RadosCluster? known))
            {
                known._users++;
                return known;
            }

            return _known[(configuration, id)] = new RadosCluster((configuration, id), Connect(configuration, id));
        }
    }

    /// <summary>Shuts a client out of the cluster: nothing is taken from it any more. Blocks the thread.</summary>
    /// <param name="address">The client's address, as a lock has it.</param>
    /// <exception cref="RadosException">This user may not do that, or the monitors do not answer.</exception>
    public void ShutOut(string address)
    {
        RadosException.Check(LibRados.Blocklist(Handle, address, 0), $"{address} cannot be put on the blocklist"); // as long as the monitors usually do
        RadosException.Check(LibRados.WaitForLatestMap(Handle), "the map of the cluster cannot be had");
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate)
        {
            if (--_users > 0) return;
            _known.Remove(_key);
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
                RadosException.Check(LibRados.ReadConfiguration(cluster, configuration), $"no configuration of Ceph can be read in {where}");
                RadosException.Check(LibRados.Configure(cluster, "client_mount_timeout", PatienceSeconds), "client_mount_timeout cannot be set");
                RadosException.Check(LibRados.Configure(cluster, "rbd_cache", "false"), "rbd_cache cannot be set"); // what was answered outlives us
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
            throw new TargetException("librados.so.2 is not on this host: install it (Debian: apt-get install librados2)", failure);
        }
    }
}
