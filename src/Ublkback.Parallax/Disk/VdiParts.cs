using Ublkback.Block;
using Ublkback.Images.Common;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Log;
using Ublkback.Parallax.Map;

namespace Ublkback.Parallax.Disk;

/// <summary>Opens the file of another VDI of the store for reading, whoever has it. Blocks the thread.</summary>
/// <exception cref="TargetException">There is none, or it is not what it should be.</exception>
internal delegate (IVdiContainer Container, VdiSuperblock Superblock) OpenVdiFile(uint vdi);

/// <summary>The parts of an open VDI, put together.</summary>
internal sealed class VdiParts : IAsyncDisposable
{
    private readonly ImageScratch _buffers = new();
    private readonly NodeCache _nodes;
    private readonly SourceContainers _files;
    private readonly IDisposable? _pin;

    /// <summary>Puts them together, and reads what has to be known from the log. Blocks the thread.</summary>
    /// <param name="container">The VDI's file.</param>
    /// <param name="known">What the file says of itself.</param>
    /// <param name="version">The content that is opened: that of the head, or of a snapshot.</param>
    /// <param name="snapshot">Of which snapshot; null for the disk as it is.</param>
    /// <param name="others">Opens other VDIs' files.</param>
    /// <param name="pin">Keeps the snapshot from being deleted.</param>
    /// <param name="warn">Takes what people should know.</param>
    /// <exception cref="InvalidDataException">The log is damaged.</exception>
    public VdiParts(
        IVdiContainer container, VdiMetadata known, VdiVersion version, ulong? snapshot, OpenVdiFile others,
        IDisposable? pin, Action<string> warn)
    {
        Container = container;
        Superblock = known.Superblock;
        SnapshotId = snapshot;
        _pin = pin;
        _files = new SourceContainers(known.Superblock.Vdi, container, vdi => others(vdi).Container, warn);
        _nodes = new NodeCache(_files.ReadCheckedAsync);
        BlockMap map = new(_nodes, version.Root);
        Content = new VdiContent(
            known.Superblock.Vdi, map, new SnapshotTable(known.Snapshots, known.Head.NextSnapshot), version);
        Segments = new SegmentPool(container, warn);
        Log = new VdiLog(container, known.Superblock, Content, Segments);
        EssentialBlocks essential = EssentialBlocks.Read(container);
        ReadLog(known, version, snapshot is null, others);
        Log.Resume(essential.Promised);
        NodeWriter = new NodeWriter(container, known.Superblock.Vdi, Segments);
        Checkpointer = new Checkpointer(
            container, known.Superblock, Content, Log, Segments,
            new MapMerger(map, _nodes, NodeWriter, text => warn($"{container.Path}: {text}")), NodeWriter,
            known.Head, warn);
        Segments.CountNodes = Checkpointer.CountNodes;
        Log.OnEnded = Checkpointer.BeginIfDue;
        Mark = new LogMark(container, essential, Log, warn);
        Log.OnDurable = Mark.Follow;
        Reader = new BlockReader(map, _files, _buffers);
        Writer = new BlockWriter(Reader, Log, Checkpointer, Claims, Brake, _buffers);
        Control = new VdiChanges(container, Content, Log, Segments, Checkpointer);
    }

    public IVdiContainer Container { get; }

    public VdiSuperblock Superblock { get; }

    /// <summary>The snapshot that is open; null when it is the disk itself.</summary>
    public ulong? SnapshotId { get; }

    public VdiContent Content { get; }

    public SegmentPool Segments { get; }

    public VdiLog Log { get; }

    /// <summary>Says how far the log is durable.</summary>
    public LogMark Mark { get; }

    public NodeWriter NodeWriter { get; }

    public NodeCache Nodes => _nodes;

    public Checkpointer Checkpointer { get; }

    public BlockReader Reader { get; }

    public BlockWriter Writer { get; }

    /// <summary>Blocks that a writer has to itself.</summary>
    public BlockClaims Claims { get; } = new();

    /// <summary>Slows down the guest's writes.</summary>
    public WriteBrake Brake { get; } = new();

    public VdiChanges Control { get; }

    public RequestQuiescence Epochs { get; } = new();

    /// <summary>Where others ask for something to be done to the disk; null when it cannot be written.</summary>
    public IDisposable? Door { get; set; }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        Mark.End();
        await _files.DisposeAsync().ConfigureAwait(false);
        _nodes.Dispose();
        _buffers.Dispose();
        _pin?.Dispose();
    }

    /// <summary>Reads what the disk was at another time. Blocks the thread; may be any.</summary>
    /// <exception cref="InvalidDataException">The log is damaged.</exception>
    public VdiContent ReadContent(VdiVersion version, OpenVdiFile others)
    {
        VdiContent content = new(Superblock.Vdi, new BlockMap(_nodes, version.Root), new SnapshotTable([], 0), version);
        ReadLog(version, (entry, place, _, _) => content.ApplyData(entry, place), others);
        return content;
    }

    // The part of a log that belongs to a version: where it ends, and who wrote last there.
    private (LogPosition End, ulong Epoch) ReadLog(VdiVersion version, LogVisitor visit, OpenVdiFile others)
    {
        if (version.End != 0 && version.End <= version.Start.Sequence) return (version.Start, 0);
        (IVdiContainer container, VdiSuperblock superblock) =
            version.Vdi == Superblock.Vdi ? (Container, Superblock) : others(version.Vdi);
        using IVdiContainer? opened = container == Container ? null : container;
        LogReader reader = new(container, version.Vdi, superblock.Id);
        LogPosition end = reader.Read(version.Start, version.End, visit);
        return (end, reader.Epoch);
    }

    // In a pool batches may have come into the next segment, though not all before them did. They do not count, and
    // must not be taken for remains of later ones.
    private void ClearNext(LogPosition end)
    {
        if (!Container.IsRemote || Container.Blocks.Geometry.IsReadOnly || end.NextSegment == 0) return;
        byte[] segment = new byte[VdiFormat.SegmentSize];
        Container.Read(end.NextSegment, segment);
        BlockStatus status = segment.AsSpan().ContainsAnyExcept((byte)0)
            ? Container.Free([new BlockRun(end.NextSegment, VdiFormat.SegmentBlocks - 1)])
            : BlockStatus.Okay;
        if (status != BlockStatus.Okay) throw new IOException($"{Container.Path} cannot be written: {status}");
    }

    private void ReadLog(VdiMetadata known, VdiVersion version, bool isHead, OpenVdiFile others)
    {
        bool isOwn = isHead && version.Vdi == known.Superblock.Vdi && version.End == 0;
        LogVisitor apply = isOwn ? Content.Apply : (entry, place, _, _) => Content.ApplyData(entry, place);
        ulong epoch = known.Head.Epoch;
        (LogPosition end, ulong last) = ReadLog(version, apply, others);
        if (isOwn) epoch = Math.Max(epoch, last);

        Log.Epoch = epoch + 1;
        Log.Resume(version.End);
        foreach (VdiSnapshot snapshot in known.Snapshots) Log.Resume(snapshot.Content.End);
        if (!isOwn) return;
        // Nothing may have been written there yet, so they look free.
        foreach (long block in end.NextSegment == 0 ? [end.Block] : new[] { end.Block, end.NextSegment })
        {
            Segments.Known.MarkUsed(VdiFormat.SegmentOf(block));
            Container.Claim(VdiFormat.SegmentOf(block));
        }

        ClearNext(end);

        Log.Open(end);
    }
}
