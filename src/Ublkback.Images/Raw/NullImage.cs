using System.Globalization;
using Ublkback.Block;

namespace Ublkback.Images.Raw;

/// <summary>Reads as zeros and forgets what is written.</summary>
internal sealed class NullImage(ImageGeometry geometry) : IBlockImage, IWorkerNeeds
{
    public ImageGeometry Geometry => geometry;

    public string Identity => string.Create(CultureInfo.InvariantCulture, $"null {geometry.SectorCount}");

    public bool AllowsManyWorkers => true;

    public ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        SeamAssert.IsValid(request, geometry, "the null image");
        if (request.Operation == BlockOperation.Read) request.Data.Span.Clear();
        return new ValueTask<BlockStatus>(BlockStatus.Okay);
    }

    public ValueTask DisposeAsync() => default;
}
