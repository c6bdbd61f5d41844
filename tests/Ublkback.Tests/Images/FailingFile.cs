using Ublkback.Block;

namespace Ublkback.Tests.Images;

/// <summary>
/// A file in memory whose requests fail now and then. A write that fails may be there all the same, or in part.
/// </summary>
internal sealed class FailingFile(RecordingFile file, Random random) : IBlockImage
{
    /// <summary>How often they fail: 0 for never, 1 for always.</summary>
    public double Rate { get; set; }

    public ImageGeometry Geometry => file.Geometry;

    public string Identity => file.Identity;

    private bool IsFailing
    {
        get
        {
            lock (random) return random.NextDouble() < Rate;
        }
    }

    public async ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        if (!IsFailing) return await file.HandleAsync(request);
        await BlockLoop.Current.DelayAsync(TimeSpan.Zero);
        if (request.Operation == BlockOperation.Write)
        {
            int sectors = request.Data.Length / BlockRequest.SectorSize;
            int there;
            lock (random) there = random.Next(3) == 0 ? sectors : random.Next(sectors);
            file.Write(
                (long)request.Sector * BlockRequest.SectorSize,
                request.Data.Span[..(there * BlockRequest.SectorSize)]);
        }

        return BlockStatus.IoError;
    }

    /// <summary>Makes it longer or shorter.</summary>
    public BlockStatus SetLength(long length) => IsFailing ? BlockStatus.NoSpace : file.SetLength(length);

    public ValueTask DisposeAsync() => file.DisposeAsync();
}
