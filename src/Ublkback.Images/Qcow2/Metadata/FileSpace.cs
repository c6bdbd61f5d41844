using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// The space for clusters in the file or device of an image. Makes a file longer when it is needed, and finds out that
/// a device has grown. On the image's worker.
/// </summary>
internal sealed class FileSpace(Qcow2Layout layout, ContainerFile file, Corruption corruption)
{
    private const long GrowthStep = 16 << 20; // bytes by which a file grows at least
    private const long MaxEnd = 1L << 55; // of which an entry of any table has the bits

    /// <summary>The end of the last cluster that may be in use; bytes.</summary>
    public long UsedEnd { get; private set; } = layout.OffsetOf(layout.ClustersFor(file.Length));

    /// <summary>The first of the clusters to which nothing was ever written. A device has none.</summary>
    public long FreshFrom { get; private set; } = file.CanGrow ? layout.ClustersFor(file.Length) : long.MaxValue;

    /// <summary>True if the space ends at a byte or behind it, or can be made to.</summary>
    public bool Reaches(long end) => file.CanGrow ? end <= MaxEnd : end <= file.Length;

    /// <summary>Makes a file so long that a range ends in it. Logs why, if it cannot.</summary>
    public ValueTask<BlockStatus> ReserveAsync(long end) =>
        end <= file.Length ? new ValueTask<BlockStatus>(BlockStatus.Okay) : GrowAsync(end);

    /// <summary>Clusters up to an end are in use.</summary>
    public void Use(long end)
    {
        UsedEnd = Math.Max(UsedEnd, end);
        FreshFrom = Math.Max(FreshFrom, layout.ClusterOf(end));
    }

    // An error of the storage is logged where it happens.
    private async ValueTask<BlockStatus> GrowAsync(long end)
    {
        if (file.CanGrow && end <= MaxEnd)
            return await file.SetLengthAsync((end + GrowthStep - 1) / GrowthStep * GrowthStep);
        await file.RemeasureAsync();
        if (end <= file.Length) return BlockStatus.Okay;
        corruption.Log(file.CanGrow
            ? $"cannot take more clusters: its file would end at byte {end}"
            : $"is full: all {file.Length} bytes of its device are in use: make the device larger");
        return BlockStatus.NoSpace;
    }
}
