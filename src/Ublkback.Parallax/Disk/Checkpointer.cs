using System.Security.Cryptography;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Log;
using Ublkback.Parallax.Map;

namespace Ublkback.Parallax.Disk;

/// <summary>
/// Makes checkpoints: brings what the log says into nodes, and has the head say that the log begins after it. So the
/// log stays short, and with it what is to be done after a crash. On the VDI's worker.
/// </summary>
/// <remarks>
/// Nodes, and the data that they point to, are durable before a head says so; the head before it is kept.
/// </remarks>
internal sealed class Checkpointer(
    IVdiContainer container, VdiSuperblock superblock, VdiContent content, VdiLog log, SegmentPool segments,
    MapMerger merger, NodeWriter writer,
    VdiHead head, Action<string> warn)
{
    /// <summary>Blocks of log after which a checkpoint is made: 256 MiB.</summary>
    public const long LogBlocks = 1 << 16;

    private readonly ImageAccess _file = new(container.Blocks);
    private readonly LoopMutex _gate = new();
    private readonly Memory<byte> _block = PinnedMemory.AllocatePages(VdiFormat.BlockSize);
    private Task<BlockStatus> _running = Task.FromResult(BlockStatus.Okay);
    private long _takenBefore; // segments for nodes, when the changes were set aside that are being written

    /// <summary>The head in the file.</summary>
    public VdiHead Head { get; private set; } = head;

    /// <summary>A checkpoint that was begun since the log was long, and may have ended.</summary>
    public Task Running => _running;

    /// <summary>How many nodes, and blocks of the table of snapshots, are to be written at most.</summary>
    public long CountNodes()
    {
        long written = (segments.TakenForNodes - _takenBefore) * VdiFormat.SegmentBlocks;
        long table = VdiFormat.BlocksFor((long)content.Snapshots.All.Count * VdiSnapshot.Length);
        return content.Map.NodeCount + Math.Max(0, content.Map.FrozenNodeCount - written) + table;
    }

    /// <summary>
    /// Waits until something may be added to the log; a status other than <see cref="BlockStatus.Okay"/> says that it
    /// cannot be.
    /// </summary>
    public ValueTask<BlockStatus> MakeRoomAsync() => log.IsOpen && content.Map.ChangeCount < 2 * Overlay.Capacity
        ? new ValueTask<BlockStatus>(BlockStatus.Okay)
        : new ValueTask<BlockStatus>(log.IsOpen ? StartAsync() : ReopenAsync());

    /// <summary>Begins a checkpoint if the log has become long.</summary>
    public void BeginIfDue()
    {
        // After one that failed, some time goes by.
        bool isDue = log.BlocksSinceCheckpoint >= LogBlocks
            || (content.Map.ChangeCount >= Overlay.Capacity && log.BlocksSinceCheckpoint >= VdiFormat.SegmentBlocks);
        if (isDue && log.IsOpen) _ = StartAsync();
    }

    /// <summary>Makes a checkpoint of all that has been answered.</summary>
    public async Task<BlockStatus> RunAsync()
    {
        await _gate.EnterAsync();
        try
        {
            return await CheckpointAsync();
        }
        finally
        {
            _gate.Leave();
        }
    }

    /// <summary>
    /// Has both heads say the same. Before anything is given back: what the older head needs would be missing when the
    /// newer one is damaged.
    /// </summary>
    public async Task<BlockStatus> RepeatHeadAsync()
    {
        await _gate.EnterAsync();
        try
        {
            VdiHead next = Head with { Generation = Head.Generation + 1 };
            BlockStatus status = await WriteHeadAsync(next);
            if (status == BlockStatus.Okay) Head = next;
            return status;
        }
        finally
        {
            _gate.Leave();
        }
    }

    /// <summary>
    /// Leaves a file that a collection need not open: the log has nothing that counts, and both heads say the same.
    /// </summary>
    public async Task<BlockStatus> SettleAsync()
    {
        BlockStatus status = await RunAsync();
        return status == BlockStatus.Okay ? await RepeatHeadAsync() : status;
    }

    /// <summary>Has both heads say that the disk holds all that was copied into it.</summary>
    public async Task<BlockStatus> FinishAsync()
    {
        await _gate.EnterAsync();
        try
        {
            VdiHead before = Head;
            Head = Head with { IsUnfinished = false };
            BlockStatus status = await CheckpointAsync();
            if (status != BlockStatus.Okay) Head = before;
            if (status != BlockStatus.Okay || !before.IsUnfinished) return status;
            VdiHead next = Head with { Generation = Head.Generation + 1 };
            status = await WriteHeadAsync(next);
            if (status == BlockStatus.Okay) Head = next;
            return status;
        }
        finally
        {
            _gate.Leave();
        }
    }

    /// <summary>Gives the disk another content, which it has had before. No request is under way.</summary>
    public async Task<BlockStatus> RollBackAsync(VdiContent then)
    {
        await _gate.EnterAsync();
        try
        {
            BlockStatus status = await CheckpointAsync();
            if (status != BlockStatus.Okay) return status;
            // From here on a write makes a checkpoint first, so that it counts whether or not the next head came into
            // the file.
            log.Close();
            VdiHead next = Head with { Generation = Head.Generation + 1, Content = then.Checkpoint };
            status = await WriteHeadAsync(next);
            if (status != BlockStatus.Okay) return status;
            Head = next;
            content.Become(then);
            return BlockStatus.Okay;
        }
        finally
        {
            _gate.Leave();
        }
    }

    // One that is under way is as good.
    private Task<BlockStatus> StartAsync() => _running.IsCompleted ? _running = RunAsync() : _running;

    // The log cannot go on where it ended, or it is another's: it goes on elsewhere, and the head says where.
    private async Task<BlockStatus> ReopenAsync()
    {
        await _gate.EnterAsync();
        try
        {
            if (log.IsOpen) return BlockStatus.Okay;
            await log.SettleAsync();
            return await CheckpointAsync();
        }
        finally
        {
            _gate.Leave();
        }
    }

    private async Task<BlockStatus> CheckpointAsync()
    {
        bool reopens = !log.IsOpen;
        LogPosition start = log.Applied;
        if (reopens)
        {
            (BlockStatus taken, long first) = await segments.TakeAsync(SegmentUse.Upkeep);
            if (taken != BlockStatus.Okay) return taken;
            start =
                new LogPosition(first, 0, log.Applied.Sequence + 1, (uint)RandomNumberGenerator.GetInt32(int.MaxValue));
        }

        // All that follows speaks of this moment.
        Overlay changes = content.Map.Freeze();
        _takenBefore = segments.TakenForNodes;
        long size = content.Size;
        ulong nextSnapshot = content.Snapshots.NextId;
        int snapshotCount = content.Snapshots.All.Count;
        byte[] table = content.Snapshots.ToBlocks();
        log.BlocksSinceCheckpoint = 0;

        (BlockStatus status, MapRoot root) = await merger.RunAsync(changes, VdiFormat.BlocksFor(size));
        MapEntry tableAt = default;
        if (status == BlockStatus.Okay) (status, tableAt) = await WriteTableAsync(table);
        if (status == BlockStatus.Okay) status = await FlushAsync();
        VdiHead next = Head with
        {
            Generation = Head.Generation + 1,
            Epoch = log.Epoch,
            Content = new VdiVersion(root, size, superblock.Vdi, start, 0),
            NextSnapshot = nextSnapshot,
            Table = tableAt,
            SnapshotCount = snapshotCount,
        };
        if (status == BlockStatus.Okay) status = await WriteHeadAsync(next);
        if (status != BlockStatus.Okay)
        {
            content.Map.Thaw();
            return status;
        }

        Head = next;
        content.Map.Replace(root);
        content.Snapshots.Rebase(next.Content);
        content.Checkpoint = next.Content;
        if (reopens) log.Open(start);
        else log.Trim(start);
        return BlockStatus.Okay;
    }

    private async Task<(BlockStatus Status, MapEntry At)> WriteTableAsync(byte[] table)
    {
        if (table.Length == 0) return (BlockStatus.Okay, default);
        BlockStatus status = await writer.MakeRoomAsync(table.Length / VdiFormat.BlockSize);
        BlockAddress first = default;
        for (int at = 0; at < table.Length && status == BlockStatus.Okay; at += VdiFormat.BlockSize)
        {
            (status, MapEntry entry) = await writer.AddAsync(table.AsMemory(at, VdiFormat.BlockSize));
            if (at == 0) first = entry.Address;
        }

        if (status == BlockStatus.Okay) status = await writer.FlushAsync();
        return (status, new MapEntry(first, Crc32C.Of(table)));
    }

    private async Task<BlockStatus> WriteHeadAsync(VdiHead next)
    {
        try
        {
            next.Write(_block.Span, superblock.Id);
        }
        catch (InvalidDataException failure)
        {
            warn($"{container.Path}: {failure.Message}");
            return BlockStatus.IoError;
        }

        BlockStatus status = await _file.RunAsync(
            BlockOperation.Write, VdiFormat.OffsetOf(next.Block), VdiFormat.BlockSize, _block);
        if (status == BlockStatus.Okay) status = await FlushAsync();
        if (status == BlockStatus.Okay) await Task.Run(() => WriteCopy(next.Block));
        return status;
    }

    // The head counts already: without its copy nothing is lost. The next head has one again.
    private void WriteCopy(long block)
    {
        try
        {
            container.WriteCopy(block, _block.Span, isFlushed: true);
        }
        catch (IOException failure)
        {
            warn($"{container.Path}: the copy of the head cannot be written: {failure.Message}");
        }
    }

    private ValueTask<BlockStatus> FlushAsync() => _file.RunAsync(BlockOperation.Flush, 0, 0, default);
}
