using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Stores;

namespace Ublkback.Parallax.Admin;

/// <summary>Finds out what is known of VDIs, whoever has them open. Any thread; blocks it.</summary>
/// <param name="store">The store.</param>
/// <param name="warn">Takes what people should know.</param>
internal sealed class VdiDescriber(IVdiStore store, Action<string> warn)
{
    private const int Together = 8; // VDIs that are read beside each other

    /// <summary>What is known of a VDI.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="patience">How long the process that has it open may take to answer; null for ever.</param>
    /// <exception cref="TargetException">It cannot be read.</exception>
    public VdiInfo Describe(string name, TimeSpan? patience)
    {
        uint vdi = store.Find(name);
        try
        {
            (VdiMetadata file, IReadOnlyList<VdiSnapshot> snapshots, long size) = Read(vdi, patience);
            return new VdiInfo(
                name, vdi, size, store.MeasureUsage(vdi), file.Head.Origin, TimeOf(file.Superblock.CreatedMs),
                store.IsWritten(vdi) ? store.ReadHolder(vdi)?.ToString() : null,
                [.. snapshots.Select(snapshot => new VdiSnapshotInfo(snapshot.Name, TimeOf(snapshot.CreatedMs)))],
                file.Head.IsUnfinished);
        }
        catch (IOException failure)
        {
            throw new TargetException($"VDI {name} cannot be read: {failure.Message}", failure);
        }
    }

    /// <summary>As <see cref="VdiAdmin.DescribeAll"/>.</summary>
    public IReadOnlyList<VdiInfo> DescribeAll(Action<string, TargetException> onFailure, TimeSpan patience) =>
    [
        .. store.Names.AsParallel().AsOrdered().WithDegreeOfParallelism(Together).Select(name =>
        {
            try
            {
                return Describe(name, patience);
            }
            catch (TargetException failure)
            {
                if (store.Names.Contains(name)) onFailure(name, failure); // else it was deleted meanwhile
                return null;
            }
        }).OfType<VdiInfo>(),
    ];

    /// <summary>What the file of a VDI says, and its snapshots and size as they are now.</summary>
    /// <exception cref="TargetException">They cannot be read.</exception>
    public (VdiMetadata File, IReadOnlyList<VdiSnapshot> Snapshots, long Size) Read(uint vdi, TimeSpan? patience)
    {
        using IVdiContainer container = store.OpenOther(vdi, warn).Container;
        VdiMetadata file = VdiMetadata.Read(container);
        (IReadOnlyList<VdiSnapshot> snapshots, long size) = VdiSnapshots.Read(store, file, container, patience);
        return (file, snapshots, size);
    }

    private static DateTimeOffset TimeOf(long milliseconds) => DateTimeOffset.FromUnixTimeMilliseconds(milliseconds);
}
