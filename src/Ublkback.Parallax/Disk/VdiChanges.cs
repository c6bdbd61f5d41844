using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Log;
using Ublkback.Parallax.Map;

namespace Ublkback.Parallax.Disk;

/// <summary>What is done to an open VDI as a whole: flushes, snapshots, another size. On the VDI's worker.</summary>
internal sealed class VdiChanges(
    IVdiContainer container, VdiContent content, VdiLog log, SegmentPool segments, Checkpointer checkpointer)
{
    private readonly ImageAccess _file = new(container.Blocks);
    private readonly LoopMutex _gate = new();
    private readonly Memory<byte> _block = PinnedMemory.AllocatePages(VdiFormat.BlockSize);

    /// <summary>
    /// Makes all that was answered durable. It is written already, with all that lies before it in the log.
    /// </summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> FlushAsync()
    {
        segments.Flushes++;
        ulong written = log.Applied.Sequence;
        BlockStatus status = await _file.RunAsync(BlockOperation.Flush, 0, 0, default);
        if (status == BlockStatus.Okay) log.MarkDurable(written);
        return status;
    }

    /// <summary>Makes a snapshot of all that was answered until now. It is durable, with all that it holds.</summary>
    /// <exception cref="TargetException">The name is taken, or there are too many.</exception>
    public Task<BlockStatus> SnapshotAsync(string name) => AloneAsync(async () =>
    {
        if (content.Snapshots.Find(name) is not null)
            throw new TargetException($"there is a snapshot {name} already", "choose another name");
        if (content.Snapshots.All.Count >= VdiFormat.MaxSnapshots)
            throw new TargetException(
                $"the VDI has {VdiFormat.MaxSnapshots} snapshots, and can have no more", "delete some");
        ulong id = content.Snapshots.NextId;
        VdiContent.WriteSnapshot(_block.Span, id, name, DateTimeOffset.UtcNow.ToUnixTimeMilliseconds());
        return await AddAsync(
            SegmentUse.Discards, batch => batch.Add(LogEntryKind.Snapshot, (long)id, _block.Span));
    });

    /// <summary>Deletes a snapshot.</summary>
    public Task<BlockStatus> DeleteAsync(ulong snapshot) =>
        AloneAsync(() => AddAsync(
            SegmentUse.Upkeep, batch => batch.Add(new LogEntry(LogEntryKind.DeleteSnapshot, (long)snapshot, 0))));

    /// <summary>Changes the size of the disk. Commands, the VDI socket and the daemon all call this.</summary>
    /// <exception cref="TargetException">A VDI cannot have that size.</exception>
    public Task<BlockStatus> ResizeAsync(long byteCount) => AloneAsync(() =>
    {
        VdiFormat.CheckSize(byteCount);
        return AddAsync(
            SegmentUse.Discards,
            batch => batch.Add(new LogEntry(LogEntryKind.Resize, byteCount / BlockRequest.SectorSize, 0)));
    });

    /// <summary>Waits until nothing of this is under way.</summary>
    public Task EndAsync() => AloneAsync(() => Task.FromResult(BlockStatus.Okay));

    private async Task<BlockStatus> AddAsync(SegmentUse use, Action<LogBatch> add)
    {
        BlockStatus status = await checkpointer.MakeRoomAsync();
        if (status != BlockStatus.Okay) return status;
        (status, LogBatch? batch) = await log.ReserveAsync(use);
        if (batch is null) return status;
        add(batch);
        log.Commit();
        status = await log.EndAsync(batch);
        return status == BlockStatus.Okay ? await FlushAsync() : status;
    }

    private async Task<BlockStatus> AloneAsync(Func<Task<BlockStatus>> action)
    {
        await _gate.EnterAsync();
        try
        {
            return await action();
        }
        finally
        {
            _gate.Leave();
        }
    }
}
