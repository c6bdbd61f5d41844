using Ublkback.Block;

namespace Ublkback.Images.Qcow2.Format;

/// <summary>
/// The file or device that an image is kept in, addressed in bytes. What lies behind its end reads as zeros. All
/// offsets and lengths are whole sectors of 512 bytes. On the image's worker.
/// </summary>
/// <param name="raw">Does the I/O.</param>
/// <param name="length">Its length now.</param>
/// <param name="setLength">Sets the length of a file; may block. Null for a device, which has the one it has.</param>
/// <param name="measure">Finds the length of a device now; may block. Null for a file.</param>
[DataPath]
internal sealed class ContainerFile(
    IBlockImage raw, long length, Func<long, BlockStatus>? setLength, Func<long>? measure = null)
{
    private const string Seam = "the qcow2 container";

    private readonly ImageAccess _access = new(raw);

    /// <summary>Its length in bytes.</summary>
    public long Length { get; private set; } = length;

    /// <summary>Whether it can grow.</summary>
    public bool CanGrow => setLength is not null;

    /// <summary>Whether an earlier flush failed.</summary>
    public bool HasLostWrites => raw.HasLostWrites;

    /// <summary>Reads.</summary>
    public ValueTask<BlockStatus> ReadAsync(long offset, Memory<byte> buffer)
    {
        // A read past the end returns zeros.
        SeamAssert.IsInside(offset, buffer.Length, long.MaxValue, Seam);
        return _access.ReadAsync(offset, buffer, Length);
    }

    /// <summary>Writes.</summary>
    public ValueTask<BlockStatus> WriteAsync(long offset, Memory<byte> buffer)
    {
        SeamAssert.IsInside(offset, buffer.Length, Length, Seam);
        return _access.RunAsync(BlockOperation.Write, offset, buffer.Length, buffer);
    }

    /// <summary>Makes all that was written before durable.</summary>
    public ValueTask<BlockStatus> FlushAsync() => _access.RunAsync(BlockOperation.Flush, 0, 0, default);

    /// <summary>Gives the storage of a range back, if it can.</summary>
    public ValueTask<BlockStatus> FreeAsync(long offset, long byteCount)
    {
        SeamAssert.IsInside(offset, byteCount, long.MaxValue, Seam);
        byteCount = Math.Min(byteCount, Length - offset);
        // A device frees no part of its own sectors.
        bool isWhole = (offset | byteCount) % raw.Geometry.PhysicalSectorSize == 0;
        return raw.Geometry.DiscardGranularity == 0 || byteCount <= 0 || !isWhole
            ? new ValueTask<BlockStatus>(BlockStatus.Okay)
            : _access.RunAsync(BlockOperation.Discard, offset, byteCount, default);
    }

    /// <summary>Makes a file longer or shorter.</summary>
    public async ValueTask<BlockStatus> SetLengthAsync(long newLength) // off the path: the file grows
    {
        if (setLength is null) return BlockStatus.NoSpace;
        BlockStatus status = await Task.Run(() => setLength(newLength));
        if (status == BlockStatus.Okay) Length = newLength;
        return status;
    }

    /// <summary>Finds out whether a device has become longer.</summary>
    public async ValueTask RemeasureAsync() // off the path: the device is full
    {
        if (measure is not null) Length = Math.Max(Length, await Task.Run(measure));
    }

    /// <summary>Closes it. Any thread.</summary>
    public ValueTask DisposeAsync() => raw.DisposeAsync();
}
