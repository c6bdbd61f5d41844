using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Linux;

namespace Ublkback.Images;

/// <summary>
/// A disk kept one to one in a file or a block device. All its I/O is on one open file description that also holds its
/// locks, on one worker.
/// </summary>
/// <remarks>
/// A failed fdatasync is remembered: the kernel drops the pages that it could not write and reports that once, so no
/// later flush can promise anything until the image is opened again.
/// </remarks>
internal sealed class RawImage(
    string path, FileDescriptor file, ImageLock? imageLock, ImageGeometry geometry, Action<string> warn) : IBlockImage
{
    private DataSyncQueue? _dataSync; // made by the worker that uses it
    private bool _syncHasFailed;

    public ImageGeometry Geometry => geometry;

    public ValueTask<BlockStatus> HandleAsync(BlockRequest request) => request.Operation switch
    {
        BlockOperation.Read or BlockOperation.Write => TransferAsync(request),
        BlockOperation.Flush => FlushAsync(),
        _ => new ValueTask<BlockStatus>(BlockStatus.Unsupported),
    };

    public async ValueTask DisposeAsync() => await Task.Run(() =>
    {
        file.Dispose();
        imageLock?.Dispose();
    }).ConfigureAwait(false);

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> TransferAsync(BlockRequest request)
    {
        Worker worker = Worker.Current;
        bool isRead = request.Operation == BlockOperation.Read;
        Memory<byte> rest = request.Data;
        long offset = (long)request.Sector * BlockRequest.SectorSize;
        while (!rest.IsEmpty)
        {
            int done = isRead
                ? await worker.ReadAsync(file, rest, offset)
                : await worker.WriteAsync(file, rest, offset);
            if (done == -LinuxError.Interrupted) continue;
            if (done <= 0) return Fail(isRead ? "reading" : "writing", rest.Length, offset, -done);
            rest = rest[done..];
            offset += done;
        }

        return BlockStatus.Okay;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> FlushAsync()
    {
        _dataSync ??= new DataSyncQueue(file);
        int result = await _dataSync.SyncAsync();
        if (result < 0)
        {
            _syncHasFailed = true;
            warn($"{path}: fdatasync failed: {LinuxError.Describe(-result)}; flushes fail until the disk is attached again");
        }

        return _syncHasFailed ? BlockStatus.IoError : BlockStatus.Okay;
    }

    private BlockStatus Fail(string action, int length, long offset, int errno)
    {
        string cause = errno == 0 ? "the file ends there" : LinuxError.Describe(errno);
        warn($"{path}: {action} {length} bytes at {offset} failed: {cause}");
        return errno == 0 ? BlockStatus.IoError : LinuxError.ToStatus(errno);
    }
}
