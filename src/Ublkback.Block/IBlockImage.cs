namespace Ublkback.Block;

/// <summary>An image terminates requests: it is what the blocks of a virtual disk are kept in.</summary>
public interface IBlockImage : IAsyncDisposable
{
    /// <summary>Size, sector sizes and access, fixed while the image is open.</summary>
    ImageGeometry Geometry { get; }

    /// <summary>
    /// Does what the request asks. Called on a worker, any number of times before the first call has ended; must not
    /// block. Failures are a status, not an exception: an exception is a bug of the image.
    /// </summary>
    ValueTask<BlockStatus> HandleAsync(BlockRequest request);
}
