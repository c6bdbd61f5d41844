using Ublkback.Block;

namespace Ublkback.Tests.Nbd;

/// <summary>Notes the requests of another image, and may fail or delay them.</summary>
internal sealed class CountingImage(IBlockImage below) : IBlockImage
{
    public List<(BlockOperation Operation, long SectorCount)> Requests { get; } = [];

    public Func<BlockRequest, BlockStatus?> Fails { get; init; } = _ => null;

    public Func<BlockRequest, Task> Delays { get; init; } = _ => Task.CompletedTask;

    public ImageGeometry Geometry { get; init; } = below.Geometry;

    public string Identity => below.Identity;

    public bool DiscardMakesZeros => below.DiscardMakesZeros;

    public async ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        Requests.Add((request.Operation, request.SectorCount));
        await Delays(request);
        return Fails(request) ?? await below.HandleAsync(request);
    }

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}
