namespace Ublkback.Block;

/// <summary>An image that can resize its storage.</summary>
public interface IResizableImage : IMeasuredImage
{
    /// <summary>
    /// Grows the disk, or shrinks it if no guest uses it. <see cref="IMeasuredImage.Remeasure"/> then finds the new
    /// size. New sectors read as zeros. Runs on the loop of one of its queues; requests may be in flight.
    /// </summary>
    /// <param name="byteCount">The new size in bytes, in whole sectors of the disk.</param>
    /// <exception cref="TargetException">The disk cannot be resized, and keeps its size.</exception>
    Task ResizeAsync(long byteCount);
}
