using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Images.Qcow2.Clusters;
using Ublkback.Images.Qcow2.Metadata;
using Ublkback.Linux.Workers;

namespace Ublkback.Images.Qcow2;

/// <summary>
/// A disk in the qcow2 format: clusters that are allocated when they are first written, over what a backing image
/// shows. Any number of requests, on one worker.
/// </summary>
/// <remarks>
/// The parts, from above: <see cref="ClusterReader"/> and <see cref="ClusterWriter"/> serve requests;
/// <see cref="ClusterMap"/> knows where the guest's clusters are, <see cref="ClusterAllocator"/> which of the file's
/// are free; <see cref="ClusterLinks"/> changes the map, at first in memory that outlives the process
/// (<see cref="MetadataLog"/>), and <see cref="MetadataCommit"/> brings that into the file when the guest flushes.
/// </remarks>
[DataPath]
internal sealed class Qcow2Image(Qcow2Parts parts, ImageGeometry geometry, string identity)
    : IAllocationMap, IImageHealth, IResizableImage
{
    private BlockLoop? _loop;
    private Task<BlockStatus>? _recovery;
    private Task<BlockStatus> _resizing = Task.FromResult(BlockStatus.Okay);
    private volatile ImageGeometry _geometry = geometry;
    private volatile ImageGeometry _nextGeometry = geometry;

    public ImageGeometry Geometry => _geometry;

    public string Identity => identity;

    public bool DiscardMakesZeros => parts.Writer.DiscardMakesZeros;

    public bool HasLostWrites => parts.File.HasLostWrites;

    /// <summary>Reads the image for one that lies over it, if nobody writes it; otherwise null.</summary>
    public ClusterReader? ReaderOfUnchanged => _geometry.IsReadOnly ? parts.Reader : null;

    public ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        SeamAssert.IsValid(request, _geometry, "the qcow2 image");
        BeginOnce();
        // completed: tested on this line
        if (!_recovery!.IsCompletedSuccessfully || _recovery.Result != BlockStatus.Okay)
            return AfterRecoveryAsync(request);
        return request.Operation == BlockOperation.Flush ? FlushAsync() : TransferAsync(request);
    }

    public async ValueTask<SectorRange> MapAsync(ulong sector, long sectorCount) // off the path: a map
    {
        BeginOnce();
        BlockStatus status = await _recovery!;
        if (status != BlockStatus.Okay) return new SectorRange(status, 0, 0, false, false, null);
        int epoch = parts.Epochs.Begin();
        SectorRange range = await parts.Reader.MapAsync(
            (long)sector * BlockRequest.SectorSize, sectorCount * BlockRequest.SectorSize);
        parts.Epochs.End(epoch);
        return range;
    }

    public async Task ResizeAsync(long byteCount) // off the path: control
    {
        if (_geometry.IsReadOnly) throw new TargetException("the image is open for reading only");
        BeginOnce();
        BlockStatus status = await _recovery!;
        if (!_resizing.IsCompleted)
            throw new TargetException("the disk is being resized", "try again when that has ended");
        if (status == BlockStatus.Okay) status = await (_resizing = parts.Resizer.ResizeAsync(byteCount));
        if (status != BlockStatus.Okay)
            throw new TargetException($"the image could not be resized: {status}; what failed is said in the log");
        _nextGeometry = _geometry with { SectorCount = SectorsOf(byteCount, _geometry.SectorSize) };
    }

    public bool Remeasure()
    {
        ImageGeometry next = _nextGeometry;
        if (next == _geometry) return false;
        _geometry = next;
        return true;
    }

    /// <summary>Sectors of 512 bytes of a disk: as many as make whole ones of its own.</summary>
    internal static ulong SectorsOf(long bytes, int sectorSize) =>
        (ulong)bytes / (ulong)sectorSize * (ulong)(sectorSize / BlockRequest.SectorSize);

    public async ValueTask DisposeAsync() // off the path: the end
    {
        // What an earlier process left is not in the file yet when nobody has used the disk since.
        bool wasUnused = _loop is null && !_geometry.IsReadOnly;
        using Worker? worker = wasUnused && parts.Links.HasChanges ? new("qcow2") : null;
        if (wasUnused && worker is null) parts.Log.Delete();
        if (worker is not null)
        {
            await worker.InvokeAsync(() =>
            {
                BeginOnce();
                return Task.CompletedTask;
            }).ConfigureAwait(false);
        }

        await EndAsync(CloseAsync).ConfigureAwait(false);
    }

    /// <summary>Lets go of everything and leaves the file as the death of the process does, for tests.</summary>
    internal ValueTask AbandonAsync() => EndAsync(() => Task.CompletedTask);

    private async ValueTask EndAsync(Func<Task> close) // off the path: the end
    {
        if (_loop is not null)
        {
            await _loop.InvokeAsync(async () =>
            {
                await Task.WhenAny(_resizing);
                parts.Links.IsClosed = true;
                await close();
                await parts.Commit.EndAsync();
                await parts.Corruption.Marking;
            }).ConfigureAwait(false);
        }

        await parts.DisposeAsync().ConfigureAwait(false);
    }

    // The loop of the image is the one of its first request. There what is left of a process before is done first.
    private void BeginOnce() // off the path: the first request
    {
        if (_loop is not null) return;
        _loop = BlockLoop.Current;
        _recovery = _geometry.IsReadOnly
            ? Task.FromResult(BlockStatus.Okay)
            : parts.Links.RecoverAsync(parts.Allocator).AsTask();
    }

    private async ValueTask<BlockStatus> AfterRecoveryAsync(BlockRequest request) // off the path: the first requests
    {
        BlockStatus status = await _recovery!;
        if (status == BlockStatus.Okay) return await HandleAsync(request);
        _loop = null; // the next request tries again
        return status;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> TransferAsync(BlockRequest request)
    {
        int epoch = parts.Epochs.Begin();
        long offset = (long)request.Sector * BlockRequest.SectorSize;
        BlockStatus status = request.Operation switch
        {
            BlockOperation.Read => await parts.Reader.ReadAsync(offset, request.Data),
            BlockOperation.Write => await parts.Writer.WriteAsync(offset, request.Data),
            BlockOperation.Discard =>
                await parts.Writer.DiscardAsync(offset, request.SectorCount * BlockRequest.SectorSize),
            _ => BlockStatus.Unsupported,
        };
        if (request.Operation != BlockOperation.Read && status == BlockStatus.Okay)
            status = await parts.Links.KeepAsync();
        parts.Epochs.End(epoch);
        return status;
    }

    private ValueTask<BlockStatus> FlushAsync()
    {
        if (_geometry.IsReadOnly) return new ValueTask<BlockStatus>(BlockStatus.Okay);
        return parts.Commit.IsClean ? parts.File.FlushAsync() : new ValueTask<BlockStatus>(parts.Commit.RunAsync());
    }

    // Leaves a file that is complete in itself, unless that fails: then the log is left for the next who opens it.
    private async Task CloseAsync() // off the path: the end
    {
        if (_geometry.IsReadOnly || await _recovery! != BlockStatus.Okay) return;
        if (parts.Links.HasChanges && !await CompleteAsync()) return;
        parts.Log.Delete();
    }

    private async ValueTask<bool> CompleteAsync() // off the path: the end
    {
        if (await parts.Commit.RunAsync() != BlockStatus.Okay) return false;
        await parts.Commit.Releasing;
        if (await parts.Commit.RunAsync() != BlockStatus.Okay || parts.Corruption.IsFound) return false;
        if (parts.File.CanGrow && parts.Space.UsedEnd < parts.File.Length)
            await parts.File.SetLengthAsync(parts.Space.UsedEnd);
        return await parts.HeaderFile.ClearDirtyAsync() == BlockStatus.Okay
            && await parts.File.FlushAsync() == BlockStatus.Okay;
    }
}
