using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Mono.Unix.Native;
using Ublkback.Block;
using Ublkback.Linux.Files;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;

namespace Ublkback.Images.Raw;

/// <summary>
/// A disk kept one to one in a file or a block device. All its I/O is on one open file description that also holds its
/// locks; any number of workers.
/// </summary>
/// <remarks>
/// A file may end within a sector of 512 bytes: the rest of that sector reads as zeros, and writing the sector makes
/// the file longer. A failed fdatasync is remembered: the kernel drops the pages that it could not write and reports
/// that once, so no later flush can promise anything until the image is opened again.
/// </remarks>
[DataPath]
internal sealed class RawImage(
    string path, string identity, FileDescriptor file, bool isDevice, ImageLock? imageLock, ImageGeometry geometry,
    Action<string> warn)
    : IAllocationMap, IWorkerNeeds, IImageHealth, IResizableImage
{
    // off the path: once for each worker
    private readonly PerWorker<DataSyncQueue> _dataSyncs = new(() => new DataSyncQueue(file));
    // off the path: once for each worker
    private readonly PerWorker<DiscardQueue> _discards = new(() => new DiscardQueue(file, isDevice));
    private readonly bool _isInMemory = MemoryFileIo.Fits(file);
    private readonly PerWorker<PuntedFileIo>? _punted =
        // off the path: once for each worker
        PuntedFileIo.Fits(file) ? new PerWorker<PuntedFileIo>(() => new PuntedFileIo(file)) : null;
    private volatile ImageGeometry _geometry = geometry;
    private volatile bool _syncHasFailed;

    public ImageGeometry Geometry => _geometry;

    public string Identity => identity;

    public bool AllowsManyWorkers => true;

    // a hole reads as zeros; what a device has discarded may read as anything
    public bool DiscardMakesZeros => !isDevice;

    public bool HasLostWrites => _syncHasFailed;

    public ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        // A container grows, and a device shrinks, before that is measured.
        SeamAssert.HasValidShape(request, _geometry, path);
        return request.Operation switch
        {
            BlockOperation.Read or BlockOperation.Write => TransferAsync(request),
            BlockOperation.Flush => FlushAsync(),
            BlockOperation.Discard => DiscardAsync(request),
            _ => new ValueTask<BlockStatus>(BlockStatus.Unsupported),
        };
    }

    public async ValueTask<SectorRange> MapAsync(ulong sector, long sectorCount) // off the path: a map
    {
        long start = (long)sector * BlockRequest.SectorSize;
        (bool isHole, long end) = await Task.Run(() => FileHole.Find(file, start));
        // A sector of which a part is data is data.
        long known = (Math.Min(end - start, sectorCount * BlockRequest.SectorSize)
            + (isHole ? 0 : BlockRequest.SectorSize - 1)) / BlockRequest.SectorSize;
        return known == 0
            ? new SectorRange(BlockStatus.Okay, 1, 0, true, false, start)
            : new SectorRange(BlockStatus.Okay, known, 0, true, isHole && !isDevice, start);
    }

    public async Task ResizeAsync(long byteCount) // off the path: control
    {
        if (isDevice)
            throw new TargetException($"{path} is a block device: resize it with what made it; its guest is told by "
                + "itself, or by 'ublkback resize'");
        if (_geometry.IsReadOnly) throw new TargetException($"{path} is open for reading only");
        int errno = await Task.Run(() => Truncate(byteCount));
        if (errno != 0) throw new TargetException($"{path} cannot be resized: {LinuxError.Describe(errno)}");
    }

    public bool Remeasure()
    {
        ImageGeometry now = _geometry;
        ulong sectorCount = SectorsOf(MeasureLength(), now.SectorSize);
        if (sectorCount == now.SectorCount) return false;
        _geometry = now with { SectorCount = sectorCount }; // off the path: the size has changed
        return true;
    }

    /// <summary>
    /// Returns the sectors of 512 bytes of a file. A last sector that the file ends in counts; of larger sectors, only
    /// complete ones do.
    /// </summary>
    internal static ulong SectorsOf(long length, int sectorSize)
    {
        const int Unit = BlockRequest.SectorSize;
        return (ulong)(sectorSize == Unit ? (length + Unit - 1) / Unit : length / sectorSize * (sectorSize / Unit));
    }

    /// <summary>Returns the length of the file or device now, in bytes.</summary>
    public long MeasureLength() => isDevice ? BlockDevice.SizeOf(file) : FileStatus.Of(file).Length;

    /// <summary>Makes the file longer or shorter. Blocks, so runs on a helper thread.</summary>
    public BlockStatus SetLength(long length)
    {
        int errno = Truncate(length);
        if (errno == 0) return BlockStatus.Okay;
        warn($"{path}: setting its length to {length} bytes failed: {LinuxError.Describe(errno)}");
        return LinuxError.ToStatus(errno);
    }

    public async ValueTask DisposeAsync() => await Task.Run(() => // off the path: the end
    {
        file.Dispose();
        imageLock?.Dispose();
    }).ConfigureAwait(false);

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> TransferAsync(BlockRequest request)
    {
        bool isRead = request.Operation == BlockOperation.Read;
        Memory<byte> rest = request.Data;
        long offset = (long)request.Sector * BlockRequest.SectorSize;
        while (!rest.IsEmpty)
        {
            int done = await (isRead ? ReadAsync(rest, offset) : WriteAsync(rest, offset));
            if (done == -LinuxError.Interrupted) continue;
            if (isRead && EndsWithinSector(done, offset, rest.Length))
            {
                rest.Span.Clear();
                break;
            }

            if (done <= 0) return Fail(isRead ? "reading" : "writing", rest.Length, offset, -done);
            rest = rest[done..];
            offset += done;
        }

        return BlockStatus.Okay;
    }

    // After a read that ended within a sector. Direct I/O refuses to read from there, at the end of the file or not.
    private static bool EndsWithinSector(int done, long offset, int rest) =>
        offset % BlockRequest.SectorSize != 0 && rest < BlockRequest.SectorSize
        && done is 0 or -LinuxError.InvalidArgument;

    private ValueTask<int> ReadAsync(Memory<byte> buffer, long offset) => _isInMemory
        ? new ValueTask<int>(MemoryFileIo.Read(file, buffer, offset))
        : _punted?.Current.ReadAsync(buffer, offset)
            ?? Worker.Current.Operations.ReadAsync(file, buffer, offset);

    private ValueTask<int> WriteAsync(Memory<byte> buffer, long offset) => _isInMemory
        ? new ValueTask<int>(MemoryFileIo.Write(file, buffer, offset))
        : _punted?.Current.WriteAsync(buffer, offset)
            ?? Worker.Current.Operations.WriteAsync(file, buffer, offset);

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> FlushAsync()
    {
        int result = await _dataSyncs.Current.SyncAsync();
        if (result < 0)
        {
            _syncHasFailed = true;
            warn(
                $"{path}: fdatasync failed: {LinuxError.Describe(-result)}; "
                + "flushes fail until the disk is attached again");
        }

        return _syncHasFailed ? BlockStatus.IoError : BlockStatus.Okay;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> DiscardAsync(BlockRequest request)
    {
        long offset = (long)request.Sector * BlockRequest.SectorSize;
        long length = request.SectorCount * BlockRequest.SectorSize;
        int result = await _discards.Current.DiscardAsync(offset, length);
        return result < 0 ? Fail("discarding", length, offset, -result) : BlockStatus.Okay;
    }

    private int Truncate(long length) =>
        Syscall.ftruncate(file.Number, length) == 0 ? 0 : Marshal.GetLastPInvokeError();

    private BlockStatus Fail(string action, long length, long offset, int errno)
    {
        string cause = errno == 0 ? "the file ends there" : LinuxError.Describe(errno);
        warn($"{path}: {action} {length} bytes at {offset} failed: {cause}");
        return errno == 0 ? BlockStatus.IoError : LinuxError.ToStatus(errno);
    }
}
