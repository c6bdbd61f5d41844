using Ublkback.Block;

namespace Sample;

/// <summary>
/// <c>stripes:SECTORS</c>: a read-only disk whose sectors are filled with their numbers. An image without storage.
/// </summary>
internal sealed class StripesImage : IBlockImage
{
    public StripesImage(BlockTarget target)
    {
        target.AllowOnly();
        if (!ulong.TryParse(target.Location, out ulong sectors) || sectors == 0)
            throw new TargetException($"stripes:{target.Location} is not a number of sectors: write stripes:2048");
        Geometry = new ImageGeometry(sectors, 512, 512, IsReadOnly: true);
    }

    public ImageGeometry Geometry { get; }

    public string Identity => $"stripes {Geometry.SectorCount}";

    public ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        // a flush: a read-only disk gets no others
        if (request.Operation != BlockOperation.Read) return new(BlockStatus.Okay);
        for (int i = 0; i < request.SectorCount; i++)
            request.Data.Span.Slice(i * BlockRequest.SectorSize, BlockRequest.SectorSize)
                .Fill((byte)(request.Sector + (ulong)i));
        return new(BlockStatus.Okay);
    }

    public ValueTask DisposeAsync() => default;
}
