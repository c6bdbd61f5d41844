namespace Ublkback.Block;

/// <summary>An image whose size can change while it is open.</summary>
public interface IMeasuredImage
{
    /// <summary>
    /// Reads the size of the storage and sets <see cref="IBlockImage.Geometry"/>. True if the size has changed. Blocks,
    /// so it runs on a helper thread; requests may be in flight.
    /// </summary>
    bool Remeasure();
}
