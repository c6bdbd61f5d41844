namespace Ublkback.Images.Qcow2.Format;

/// <summary>
/// The clusters of the file that hold the image's own tables. A broken image may say that a guest's data is there, or
/// that they are free; nothing but tables is ever written to them.
/// </summary>
internal sealed class ReservedClusters(Qcow2Layout layout)
{
    private readonly HashSet<long> _clusters = [];

    /// <summary>Adds a cluster. Returns false if it was there already.</summary>
    public bool Add(long cluster) => _clusters.Add(cluster);

    /// <summary>Adds the clusters of a range of bytes. Returns false if one of them was there already.</summary>
    public bool AddRange(long offset, long length)
    {
        bool areNew = true;
        for (long cluster = layout.ClusterOf(offset); cluster < layout.ClustersFor(offset + length); cluster++)
            areNew &= _clusters.Add(cluster);
        return areNew;
    }

    /// <summary>A cluster of a range that holds a table; null if none does. Looks at all of them.</summary>
    public long? FindIn(long first, int count)
    {
        foreach (long cluster in _clusters)
        {
            if (cluster >= first && cluster < first + count) return cluster;
        }

        return null;
    }

    /// <summary>Takes a cluster away.</summary>
    public void Remove(long cluster) => _clusters.Remove(cluster);

    /// <summary>Whether a cluster holds a table.</summary>
    public bool Contains(long cluster) => _clusters.Contains(cluster);
}
