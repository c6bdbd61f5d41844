namespace Ublkback.Block;

/// <summary>
/// Keeps the blocks of a virtual disk, and so terminates requests. An image that can do more also implements
/// <see cref="IWorkerNeeds"/>, <see cref="IImageHealth"/>, <see cref="IMeasuredImage"/>, <see cref="IResizableImage"/>,
/// <see cref="IDiskObserver"/> or <see cref="IAllocationMap"/>.
/// </summary>
public interface IBlockImage : IAsyncDisposable
{
    /// <summary>
    /// Size, sector sizes and access. Only <see cref="IMeasuredImage.Remeasure"/> changes it. Any thread.
    /// </summary>
    ImageGeometry Geometry { get; }

    /// <summary>
    /// Names the data of the disk: two open images have the same identity exactly when they have the same data. A file
    /// that replaced another has a different identity.
    /// </summary>
    string Identity { get; }

    /// <summary>True if discarded sectors, in whole units of a discard, read as zeros.</summary>
    bool DiscardMakesZeros => false;

    /// <summary>
    /// Executes one request. Further requests may arrive before earlier ones complete. Runs on a worker and must not
    /// block. Returns failures as a status; an exception is a bug in the image.
    /// </summary>
    ValueTask<BlockStatus> HandleAsync(BlockRequest request);
}
