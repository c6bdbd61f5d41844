using Ublkback.Block;

namespace Ublkback.Parallax.Containers;

/// <summary>
/// What a VDI is kept in: blocks of 4 KiB, in segments that are allocated and freed. Reads and writes on the VDI's
/// worker, the rest on any thread.
/// </summary>
internal interface IVdiContainer : IAsyncDisposable, IDisposable
{
    /// <summary>Closes it. Blocks the thread.</summary>
    void IDisposable.Dispose() => DisposeAsync().AsTask().GetAwaiter().GetResult();

    /// <summary>What it is, for people to read.</summary>
    string Path { get; }

    /// <summary>Does reads, writes and flushes.</summary>
    IBlockImage Blocks { get; }

    /// <summary>Whether a write takes so long that it is worth a wait for more that can go with it.</summary>
    bool IsRemote => false;

    /// <summary>
    /// Whether only a whole segment that is freed gives space back; otherwise each block does.
    /// </summary>
    bool FreesWholeSegments => false;

    /// <summary>Reads blocks; what lies behind the end is zeros. Blocks the thread.</summary>
    /// <exception cref="IOException">They cannot be read.</exception>
    void Read(long block, Span<byte> target);

    /// <summary>Writes a block that is not part of the disk. Blocks the thread.</summary>
    /// <exception cref="IOException">It cannot be written, or another host has taken the VDI over.</exception>
    void Write(long block, ReadOnlySpan<byte> content);

    /// <summary>
    /// Reads from the second copy of what is essential, which is kept in another place. What is not there is zeros.
    /// Any thread; blocks it.
    /// </summary>
    /// <exception cref="IOException">It cannot be read.</exception>
    void ReadCopy(long block, Span<byte> target);

    /// <summary>Writes a block of that copy. Any thread; blocks it.</summary>
    /// <param name="block">Which block.</param>
    /// <param name="content">Its content.</param>
    /// <param name="isFlushed">True if it must be durable when this returns.</param>
    /// <exception cref="IOException">It cannot be written.</exception>
    void WriteCopy(long block, ReadOnlySpan<byte> content, bool isFlushed);

    /// <summary>
    /// True if the storage knows that a segment is not there. False if it cannot tell. Blocks the thread.
    /// </summary>
    bool IsMissing(long segment) => false;

    /// <summary>
    /// The segments that hold nothing, lowest first, and then all behind the last that does. Blocks the thread.
    /// </summary>
    IEnumerable<long> FindFreeSegments();

    /// <summary>The segments that hold something, but for the first of all, lowest first. Blocks the thread.</summary>
    IEnumerable<long> FindUsedSegments();

    /// <summary>Makes sure that a segment can be written without further space. Blocks the thread.</summary>
    /// <param name="segment">The segment.</param>
    /// <param name="isFlushedOften">Whether there will be many flushes while it is being written, so that these should
    /// have little to do.</param>
    /// <param name="isReserve">Whether it is kept back for what makes room, for which there may be space when there is
    /// none for anything else.</param>
    /// <returns>Whether there was space for it: <see cref="BlockStatus.Okay"/> or
    /// <see cref="BlockStatus.NoSpace"/>.</returns>
    /// <exception cref="IOException">Something else is wrong.</exception>
    BlockStatus Allocate(long segment, bool isFlushedOften, bool isReserve);

    /// <summary>Makes sure that we write a segment, and not who had the VDI before. Blocks the thread.</summary>
    /// <exception cref="IOException">Another one has taken the VDI over.</exception>
    void Claim(long segment)
    {
        // Where one has the file alone there is nothing to be done.
    }

    /// <summary>
    /// Gives blocks back, which nothing refers to any more; they then read as zeros. Blocks the thread.
    /// </summary>
    /// <param name="runs">One run, or several that lie in one segment.</param>
    BlockStatus Free(IReadOnlyList<BlockRun> runs);
}
