using System.Globalization;
using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Log;
using Ublkback.Parallax.Map;

namespace Ublkback.Parallax.Disk;

/// <summary>
/// A virtual disk image with snapshots: everything is appended to a log, and a map tells where the blocks are. Any
/// number of requests, on one worker.
/// </summary>
/// <remarks>
/// The parts, from above: <see cref="BlockReader"/> and <see cref="BlockWriter"/> serve requests;
/// <see cref="BlockMap"/> knows where the blocks are, <see cref="VdiLog"/> writes them, and <see cref="Checkpointer"/>
/// brings what the log says into the map's nodes.
/// </remarks>
[DataPath]
internal sealed class VdiImage : IWorkerNeeds, IAllocationMap, IImageHealth, IResizableImage,
    IUnfinishedImage
{
    private readonly VdiParts _parts;
    private readonly TaskCompletionSource<BlockLoop> _loop = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly CancellationTokenSource _closing = new();
    private readonly LoopCondition _released = new();
    private int _holds;
    private volatile ImageGeometry _geometry;
    private long _nextSize;

    public VdiImage(VdiParts parts, ImageGeometry geometry)
    {
        _parts = parts;
        _geometry = geometry;
        _nextSize = parts.Content.Size;
    }

    public ImageGeometry Geometry => _geometry;

    public string Identity =>
        // off the path: the start
        string.Create(CultureInfo.InvariantCulture, $"VDI {_parts.Superblock.Id} {_parts.SnapshotId}");

    public bool DiscardMakesZeros => true;

    public bool HasLostWrites => _parts.Container.Blocks.HasLostWrites;

    /// <summary>Its parts, for what is done to the disk beside requests.</summary>
    public VdiParts Parts => _parts;

    /// <summary>What ends with it.</summary>
    public IDisposable? Owned { get; set; }

    /// <summary>Whether it can be written.</summary>
    public bool IsWriter => !_geometry.IsReadOnly;

    public ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        SeamAssert.IsValid(request, Geometry, "the VDI");
        BeginOnce();
        return request.Operation == BlockOperation.Flush ? FlushAsync() : TransferAsync(request);
    }

    public async ValueTask<SectorRange> MapAsync(ulong sector, long sectorCount) // off the path: a map
    {
        BeginOnce();
        const int SectorsPerBlock = VdiFormat.BlockSize / BlockRequest.SectorSize;
        const int MaxBlocks = 1 << 16;
        long block = (long)sector / SectorsPerBlock;
        int skip = (int)((long)sector % SectorsPerBlock);
        int wanted = (int)Math.Min(MaxBlocks, (sectorCount + skip + SectorsPerBlock - 1) / SectorsPerBlock);
        int epoch = await _parts.Epochs.BeginAsync();
        (BlockStatus status, MapEntry first, int count) = await _parts.Reader.FindRunAsync(block, wanted);
        _parts.Epochs.End(epoch);
        if (status != BlockStatus.Okay) return new SectorRange(status, 0, 0, false, false, null);
        long known = Math.Min(sectorCount, ((long)count * SectorsPerBlock) - skip);
        bool isHole = first.Address.IsNone;
        return new SectorRange(BlockStatus.Okay, known, 0, !isHole, isHole, null);
    }

    public async Task ResizeAsync(long byteCount) // off the path: control
    {
        BeginOnce();
        BlockStatus status = await _parts.Control.ResizeAsync(byteCount);
        if (status != BlockStatus.Okay)
            throw new TargetException($"the VDI could not be resized: {status}; what failed is said in the log");
        Volatile.Write(ref _nextSize, byteCount);
    }

    /// <summary>
    /// Gives the disk another content, which it has had before, between two requests; gives the name of a snapshot of
    /// what it had until then.
    /// </summary>
    /// <exception cref="TargetException">It could not be done.</exception>
    // off the path: control
    public Task<string> RollBackAsync(VdiContent then) => _parts.Epochs.RunAloneAsync(async () =>
    {
        string kept = $"before-rollback-{_parts.Content.Snapshots.NextId}";
        BlockStatus status = await _parts.Control.SnapshotAsync(kept);
        if (status == BlockStatus.Okay) status = await _parts.Checkpointer.RollBackAsync(then);
        if (status != BlockStatus.Okay)
            throw new TargetException($"the VDI could not be rolled back: {status}; what failed is said in the log");
        Volatile.Write(ref _nextSize, then.Size);
        return kept;
    });

    /// <summary>What was copied into the disk is all there: it can be used now.</summary>
    public async Task FinishAsync() // off the path: the end of an import
    {
        BeginOnce();
        BlockStatus status = await _parts.Checkpointer.FinishAsync();
        if (status != BlockStatus.Okay)
            throw new TargetException($"the VDI could not be finished: {status}; what failed is said above");
    }

    public bool Remeasure()
    {
        ulong sectors = (ulong)Volatile.Read(ref _nextSize) / BlockRequest.SectorSize;
        if (sectors == _geometry.SectorCount) return false;
        _geometry = _geometry with { SectorCount = sectors }; // off the path: the size has changed
        return true;
    }

    /// <summary>Cancelled when it is being closed: what <see cref="HoldAsync"/> does should end then.</summary>
    public CancellationToken Closing => _closing.Token;

    /// <summary>Does something on its loop, which it is not closed during.</summary>
    /// <exception cref="OperationCanceledException">It is being closed.</exception>
    public Task<T> HoldAsync<T>(Func<Task<T>> action) => InvokeAsync(async () => // off the path: control
    {
        _closing.Token.ThrowIfCancellationRequested();
        _holds++;
        try
        {
            return await action();
        }
        finally
        {
            _holds--;
            _released.WakeAll();
        }
    });

    public void UseOn(BlockLoop loop) => _loop.TrySetResult(loop);

    /// <summary>
    /// Runs something on the loop of the image, which it is told when it is opened, or else has from its first request.
    /// </summary>
    /// <exception cref="TargetException">It has none.</exception>
    public async Task<T> InvokeAsync<T>(Func<Task<T>> action) // off the path: control
    {
        TimeSpan patience = TimeSpan.FromSeconds(5);
        try
        {
            BlockLoop loop = await _loop.Task.WaitAsync(patience).ConfigureAwait(false);
            return await loop.InvokeAsync(action).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            throw new TargetException(
                "the process that holds the VDI is not ready", "try again");
        }
    }

    public async ValueTask DisposeAsync() // off the path: the end
    {
        _parts.Door?.Dispose();
        await _closing.CancelAsync().ConfigureAwait(false);
        if (_loop.Task.IsCompletedSuccessfully)
            await (await _loop.Task.ConfigureAwait(false)).InvokeAsync(CloseAsync).ConfigureAwait(false);
        if (_parts.Door is IAsyncDisposable door) await door.DisposeAsync().ConfigureAwait(false); // replies are sent
        await _parts.DisposeAsync().ConfigureAwait(false);
        Owned?.Dispose();
        _closing.Dispose();
    }

    // Without UseOn, the loop of the image is that of its first request.
    private void BeginOnce()
    {
        if (!_loop.Task.IsCompleted) UseOn(BlockLoop.Current);
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> TransferAsync(BlockRequest request)
    {
        int epoch = await _parts.Epochs.BeginAsync();
        long offset = (long)request.Sector * BlockRequest.SectorSize;
        BlockStatus status = request.Operation switch
        {
            BlockOperation.Read => await _parts.Reader.ReadAsync(offset, request.Data),
            BlockOperation.Write => await _parts.Writer.WriteAsync(offset, request.Data),
            BlockOperation.Discard =>
                await _parts.Writer.DiscardAsync(offset, request.SectorCount * BlockRequest.SectorSize),
            _ => BlockStatus.Unsupported,
        };
        _parts.Epochs.End(epoch);
        return status;
    }

    private ValueTask<BlockStatus> FlushAsync() =>
        IsWriter ? _parts.Control.FlushAsync() : new ValueTask<BlockStatus>(BlockStatus.Okay);

    // Leaves a file that needs no log to be read, unless that fails: then the next who opens it reads the log.
    private async Task CloseAsync() // off the path: the end
    {
        while (_holds > 0) await _released.WaitAsync();
        await _parts.Control.EndAsync();
        if (!IsWriter) return;
        await _parts.Log.SettleAsync();
        await _parts.Checkpointer.Running;
        if (_parts.Content.Map.ChangeCount > 0 && _parts.Log.IsOpen) await _parts.Checkpointer.RunAsync();
        await _parts.Mark.SettleAsync();
        await _parts.Segments.EndAsync();
    }
}
