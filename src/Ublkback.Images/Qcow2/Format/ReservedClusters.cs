namespace Ublkback.Images.Qcow2.Format;

/// <summary>
/// The clusters of the file that hold the image's own tables. A broken image may say that a guest's data is there, or
/// that they are free; nothing but tables is ever written to them.
/// </summary>
internal sealed class ReservedClusters(Qcow2Layout layout)
{
    private readonly HashSet<long> _clusters = [];

    /// <summary>Adds a cluster.</summary>
    public void Add(long cluster) => _clusters.Add(cluster);

    /// <summary>Adds the clusters of a range of bytes.</summary>
    public void AddRange(long offset, long length)
    {
        for (long cluster = layout.ClusterOf(offset); cluster < layout.ClustersFor(offset + length); cluster++)
            _clusters.Add(cluster);
    }

    /// <summary>Takes a cluster away.</summary>
    public void Remove(long cluster) => _clusters.Remove(cluster);

    /// <summary>Whether a cluster holds a table.</summary>
    public bool Contains(long cluster) => _clusters.Contains(cluster);
}
