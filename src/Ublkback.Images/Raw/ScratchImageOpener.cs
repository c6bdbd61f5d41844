using Ublkback.Block;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Raw;

/// <summary>
/// Opens images without storage, for tests and scratch: <c>memory:SIZE</c>, kept in the daemon's memory, of which only
/// what is written takes any, and <c>null:SIZE</c>, which reads as zeros and forgets what is written. SIZE is as in
/// 512M or 10G.
/// </summary>
internal static class ScratchImageOpener
{
    private static readonly ImageGeometry Shape =
        new(0, BlockRequest.SectorSize, MemoryMapping.PageSize, IsReadOnly: false, MemoryMapping.PageSize);

    /// <summary>
    /// Opens an image in memory. It is gone with the daemon: the next one does not go on with it, having other data.
    /// </summary>
    /// <exception cref="TargetException">The size is none, or there is no memory.</exception>
    public static IBlockImage OpenMemory(BlockTarget target, ImageOpening opening)
    {
        ImageGeometry geometry = Measure(target, opening);
        try
        {
            MemoryFile memory = MemoryFile.CreateSealed(
                "ublkback-disk", (long)geometry.SectorCount * BlockRequest.SectorSize);
            return new RawImage(
                $"memory:{target.Location}", $"memory {Guid.NewGuid()}", memory.Descriptor, isDevice: false, null,
                geometry, opening.Warn);
        }
        catch (LinuxException failure)
        {
            throw new TargetException(
                $"memory:{target.Location} cannot be made: {LinuxError.Describe(failure.Errno)}", failure);
        }
    }

    /// <summary>Opens an image of nothing.</summary>
    /// <exception cref="TargetException">The size is none.</exception>
    public static IBlockImage OpenNull(BlockTarget target, ImageOpening opening) =>
        new NullImage(Measure(target, opening));

    private static ImageGeometry Measure(BlockTarget target, ImageOpening opening)
    {
        target.AllowOnly();
        long size = new HookTarget(target.Scheme, new Dictionary<string, string> { ["size"] = target.Location })
            .GetSize("size")!.Value;
        if (size == 0 || size % MemoryMapping.PageSize != 0)
            throw new TargetException(
                $"{target.Scheme}:{target.Location} has {size} bytes", $"give a multiple of {MemoryMapping.PageSize}");
        return Shape with
        {
            SectorCount = (ulong)size / BlockRequest.SectorSize,
            IsReadOnly = opening.IsReadOnly,
            DiscardGranularity = opening.AllowsDiscard && !opening.IsReadOnly ? MemoryMapping.PageSize : 0,
        };
    }
}
