using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Log;

/// <summary>
/// A batch that is being filled, written, or waited for: a header, and the blocks that follow it. On the VDI's worker.
/// </summary>
[DataPath]
internal sealed class LogBatch
{
    /// <summary>Blocks that follow the header at most: 1.25 MiB.</summary>
    public const int MaxBlocks = 320;

    private readonly Memory<byte> _memory = PinnedMemory.AllocatePages((1 + MaxBlocks) * VdiFormat.BlockSize);
    private readonly Action _onWritten;
    private readonly Action _written;
    private ValueTaskAwaiter<BlockStatus> _writing;
    private int _maxBlocks;

    /// <summary>Makes one.</summary>
    /// <param name="written">Called when a write of it has ended.</param>
    public LogBatch(Action written)
    {
        _written = written;
        _onWritten = OnWritten;
    }

    /// <summary>Where it goes to.</summary>
    public LogPosition Position { get; set; }

    /// <summary>The checksum of its header.</summary>
    public uint Crc { get; private set; }

    /// <summary>Entries it has.</summary>
    public int EntryCount { get; private set; }

    /// <summary>Blocks that follow the header.</summary>
    public int BlockCount { get; private set; }

    /// <summary>How many more entries it takes, with a block each.</summary>
    public int Room => Math.Min(_maxBlocks - BlockCount, BatchHeader.MaxEntries - EntryCount);

    /// <summary>Whether it has ended, so that its status is known.</summary>
    public bool IsDone { get; set; }

    /// <summary>Whether the write has ended.</summary>
    public bool IsWritten { get; private set; }

    /// <summary>How it ended.</summary>
    public BlockStatus Status { get; set; }

    /// <summary>Those who wait until it is done.</summary>
    public LoopCondition Done { get; } = new();

    /// <summary>How many of them have not looked yet.</summary>
    public int Users { get; set; }

    /// <summary>The header.</summary>
    public Span<byte> Header => _memory.Span[..VdiFormat.BlockSize];

    /// <summary>Begins a batch at a position in the log.</summary>
    public void Begin(LogPosition position, int maxBlocks)
    {
        Position = position;
        _maxBlocks = Math.Min(MaxBlocks, maxBlocks);
        EntryCount = BlockCount = Users = 0;
        IsDone = IsWritten = false;
        Status = BlockStatus.Okay;
    }

    /// <summary>Adds an entry without a block.</summary>
    public void Add(LogEntry entry) => BatchHeader.SetEntry(Header, EntryCount++, entry);

    /// <summary>Adds an entry with a copy of a block.</summary>
    public void Add(LogEntryKind kind, long subject, ReadOnlySpan<byte> block)
    {
        block.CopyTo(BlockAt(BlockCount++));
        Add(new LogEntry(kind, subject, Crc32C.Of(block)));
    }

    /// <summary>The block of a number among those that follow the header.</summary>
    public Span<byte> BlockAt(int index) => _memory.Span.Slice((1 + index) * VdiFormat.BlockSize, VdiFormat.BlockSize);

    /// <summary>Writes it, as the next of a log.</summary>
    public void Write(ImageAccess file, Guid vdi, ulong epoch, ulong durable, LogPosition position)
    {
        Position = position;
        Crc = BatchHeader.Seal(Header, vdi, epoch, durable, position, EntryCount, BlockCount);
        int length = (1 + BlockCount) * VdiFormat.BlockSize;
        // A batch lies in one segment, or the collector would free a part of it.
        SeamAssert.IsInside(
            VdiFormat.OffsetOf(position.Block) % VdiFormat.SegmentSize, length, VdiFormat.SegmentSize, "a VDI's log");
#pragma warning disable CA2012 // its awaiter is asked once, when it has ended
        _writing = file.RunAsync(BlockOperation.Write, VdiFormat.OffsetOf(position.Block), length, _memory[..length])
            .GetAwaiter();
#pragma warning restore CA2012
        if (_writing.IsCompleted) OnWritten();
        else _writing.UnsafeOnCompleted(_onWritten);
    }

    /// <summary>Says how it ended, to all who wait.</summary>
    public void End(BlockStatus status)
    {
        Status = status;
        IsDone = true;
        Done.WakeAll();
    }

    private void OnWritten()
    {
        Status = _writing.GetResult(); // completed: the awaiter called, or was tested
        IsWritten = true;
        _written();
    }
}
