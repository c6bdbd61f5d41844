using System.Buffers.Binary;
using Ublkback.Block;

namespace Ublkback.Images.Qcow2.Format;

/// <summary>
/// Writes the header of an image that is open for writing. Only numbers in its first sector change. On the image's
/// worker.
/// </summary>
internal sealed class HeaderFile(ContainerFile file, Qcow2Header header, Memory<byte> firstSector)
{
    private readonly LoopMutex _gate = new();
    private readonly byte[] _before = new byte[firstSector.Length];
    private bool _isUnsure; // after a failed write: the file holds the old header or the new one

    /// <summary>
    /// Sets the dirty bit and the generation: the log of that generation has changes that the tables lack. Does nothing
    /// for version 2.
    /// </summary>
    public ValueTask<BlockStatus> SetDirtyAsync(uint generation) =>
        ChangeFeaturesAsync(Qcow2Header.DirtyFeature, 0, generation);

    /// <summary>Sets the generation. Does nothing for version 2.</summary>
    public ValueTask<BlockStatus> SetGenerationAsync(uint generation) => ChangeFeaturesAsync(0, 0, generation);

    /// <summary>Clears the dirty bit: the tables are complete.</summary>
    public ValueTask<BlockStatus> ClearDirtyAsync() => ChangeFeaturesAsync(0, Qcow2Header.DirtyFeature, 0);

    /// <summary>Sets the corrupt bit. If the write fails, later writes of the header set it.</summary>
    public ValueTask<BlockStatus> SetCorruptAsync() =>
        ChangeFeaturesAsync(Qcow2Header.CorruptFeature, 0, null, sticks: true);

    /// <summary>Sets the place of the refcount table.</summary>
    public ValueTask<BlockStatus> SetRefcountTableAsync(long offset, int clusters) => WriteAsync(sector =>
    {
        BinaryPrimitives.WriteInt64BigEndian(sector[Qcow2Header.RefcountTableAt..], offset);
        BinaryPrimitives.WriteInt32BigEndian(sector[(Qcow2Header.RefcountTableAt + 8)..], clusters);
    });

    /// <summary>Sets the place and the number of entries of the L1 table.</summary>
    public ValueTask<BlockStatus> SetL1Async(long offset, int entries) => WriteAsync(sector =>
    {
        BinaryPrimitives.WriteInt32BigEndian(sector[Qcow2Header.L1SizeAt..], entries);
        BinaryPrimitives.WriteInt64BigEndian(sector[Qcow2Header.L1OffsetAt..], offset);
    });

    /// <summary>Sets the virtual size.</summary>
    public ValueTask<BlockStatus> SetSizeAsync(long bytes) => SetSizeAsync(bytes, sticks: false);

    /// <summary>Sets the virtual size back. If the write fails, later writes of the header set it.</summary>
    public ValueTask<BlockStatus> ResetSizeAsync(long bytes) => SetSizeAsync(bytes, sticks: true);

    /// <summary>
    /// Writes the header again if the last write failed. Call it before tables are written: the failed write may have
    /// changed where the header points. A flush makes it durable.
    /// </summary>
    public ValueTask<BlockStatus> EnsureAsync() =>
        _isUnsure ? WriteAsync(_ => { }) : new ValueTask<BlockStatus>(BlockStatus.Okay);

    // A writer must clear autoclear bits that its writes invalidate: persistent bitmaps, and all unknown ones.
    private ValueTask<BlockStatus> ChangeFeaturesAsync(
        ulong added, ulong removed, uint? generation, bool sticks = false)
    {
        if (header.Version < 3) return new ValueTask<BlockStatus>(BlockStatus.Okay);
        return WriteAsync(sector =>
        {
            Span<byte> features = sector[Qcow2Header.IncompatibleAt..];
            BinaryPrimitives.WriteUInt64BigEndian(
                features, (BinaryPrimitives.ReadUInt64BigEndian(features) | added) & ~removed);
            Span<byte> autoclear = sector[Qcow2Header.AutoclearAt..];
            ulong now = BinaryPrimitives.ReadUInt64BigEndian(autoclear) >> Qcow2Header.GenerationShift;
            BinaryPrimitives.WriteUInt64BigEndian(autoclear, (generation ?? now) << Qcow2Header.GenerationShift);
        }, sticks);
    }

    private ValueTask<BlockStatus> SetSizeAsync(long bytes, bool sticks) => WriteAsync(
        sector => BinaryPrimitives.WriteInt64BigEndian(sector[Qcow2Header.VirtualSizeAt..], bytes), sticks);

    private async ValueTask<BlockStatus> WriteAsync(SpanAction change, bool sticks = false)
    {
        await _gate.EnterAsync();
        firstSector.Span.CopyTo(_before);
        change(firstSector.Span);
        BlockStatus status = await file.WriteAsync(0, firstSector);
        _isUnsure = status != BlockStatus.Okay;
        if (_isUnsure && !sticks) _before.CopyTo(firstSector); // the caller goes on with what was before
        _gate.Leave();
        return status;
    }

    private delegate void SpanAction(Span<byte> sector);
}
