namespace Ublkback.Block;

/// <summary>An image terminates requests: it is what the blocks of a virtual disk are kept in.</summary>
public interface IBlockImage : IAsyncDisposable
{
    /// <summary>Size, sector sizes and access. Only <see cref="Remeasure"/> changes it. Any thread.</summary>
    ImageGeometry Geometry { get; }

    /// <summary>
    /// What the disk's data is kept in, so that two opened images have the same identity exactly when they have the
    /// same data: a file that was put in the place of another has a different one.
    /// </summary>
    string Identity { get; }

    /// <summary>
    /// Whether the queues of a disk may hand in their requests on different workers at the same time. Otherwise all
    /// requests come on one worker.
    /// </summary>
    bool AllowsManyWorkers => false;

    /// <summary>Whether discarded sectors, in whole units of a discard, read as zeros.</summary>
    bool DiscardMakesZeros => false;

    /// <summary>
    /// Who may hold up a worker, for people to read, so that the disk is to have one of its own; null when nobody does.
    /// </summary>
    string? NeedsOwnWorkerFor => null;

    /// <summary>
    /// What keeps requests of the disk waiting, for people to read; null when nothing does. Any thread.
    /// </summary>
    string? Trouble => null;

    /// <summary>
    /// Whether writes that were answered may be lost, since a flush failed, so that no later flush of this image or of
    /// one that a successor opens in its place can promise anything. Any thread.
    /// </summary>
    bool HasLostWrites => false;

    /// <summary>
    /// Does what the request asks. Called on a worker, any number of times before the first call has ended; must not
    /// block. Failures are a status, not an exception: an exception is a bug of the image.
    /// </summary>
    ValueTask<BlockStatus> HandleAsync(BlockRequest request);

    /// <summary>Learns what happens to the disk. On the loop of one of its queues.</summary>
    void OnEvent(DiskEvent happened)
    {
    }

    /// <summary>
    /// Makes the disk larger, or smaller when nobody uses it, if the image can do that itself; <see cref="Remeasure"/>
    /// finds it so. Where it is larger it reads as zeros. On the loop of one of its queues; requests may be under way
    /// meanwhile.
    /// </summary>
    /// <param name="byteCount">The new size in bytes, in whole sectors of the disk.</param>
    /// <exception cref="TargetException">It cannot be done; the message says why, and the disk has its old
    /// size.</exception>
    Task ResizeAsync(long byteCount) => throw new TargetException("a disk of this kind cannot be resized from here");

    /// <summary>
    /// Looks whether what the image is kept in has grown or shrunk, and sets <see cref="Geometry"/>; true when the size
    /// has changed. Blocks, so runs on a helper thread; requests may be under way meanwhile.
    /// </summary>
    bool Remeasure() => false;
}
