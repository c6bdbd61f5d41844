using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using Mono.Unix.Native;
using Ublkback.Block;
using Ublkback.Images.Raw;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Containers;

/// <summary>A VDI's file in a file system: a free segment is a hole.</summary>
internal sealed class FileContainer : IVdiContainer
{
    private const int BufferSize = 256 << 10;

    private readonly Lock _bounce = new();
    private readonly Memory<byte> _buffer = PinnedMemory.AllocatePages(BufferSize);
    private readonly SafeFileHandle _handle;
    private readonly FileDescriptor _descriptor;
    private readonly string _copyPath;

    private FileContainer(
        string path, string copyPath, IBlockImage blocks, SafeFileHandle handle, FileDescriptor descriptor)
    {
        Path = path;
        _copyPath = copyPath;
        Blocks = blocks;
        _handle = handle;
        _descriptor = descriptor;
    }

    public string Path { get; }

    public IBlockImage Blocks { get; }

    /// <summary>Opens a file. Blocks the thread.</summary>
    /// <param name="path">Its path.</param>
    /// <param name="copyPath">The path of the copy of what is essential.</param>
    /// <param name="cache">As the option <c>cache</c> of raw images.</param>
    /// <param name="isLocked">Whether it is locked: against all others, or if it is only read, against those who
    /// write.</param>
    /// <param name="opening">Who opens it.</param>
    /// <exception cref="TargetException">It cannot be opened.</exception>
    public static FileContainer Open(
        string path, string copyPath, string cache, bool isLocked, ImageOpening opening)
    {
        Dictionary<string, string> options = new() { ["cache"] = cache, ["share"] = isLocked ? "no" : "unsafe" };
        IBlockImage blocks = RawImageOpener.Open(path, options, opening);
        try
        {
            FileAccess access = opening.IsReadOnly ? FileAccess.Read : FileAccess.ReadWrite;
            SafeFileHandle handle = File.OpenHandle(
                path, FileMode.Open, access, FileShare.ReadWrite | FileShare.Delete);
            if (RandomAccess.GetLength(handle) < VdiFormat.SegmentSize)
            {
                handle.Dispose();
                throw new IOException($"it has fewer than {VdiFormat.SegmentSize} bytes, so it was cut");
            }

            return new FileContainer(
                path, copyPath, blocks, handle,
                OpenPast(path, opening.IsReadOnly ? OpenFlags.O_RDONLY : OpenFlags.O_RDWR));
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            blocks.DisposeAsync().AsTask().GetAwaiter().GetResult();
            throw new TargetException($"{path} cannot be opened: {failure.Message}", failure);
        }
    }

    public void Read(long block, Span<byte> target)
    {
        lock (_bounce)
        {
            long offset = VdiFormat.OffsetOf(block);
            while (target.Length > 0)
            {
                long done = Syscall.pread(
                    _descriptor.Number, PinnedMemory.AddressNumberOf(_buffer),
                    (ulong)Math.Min(target.Length, BufferSize), offset);
                if (done < 0) throw new LinuxException(Marshal.GetLastPInvokeError(), Path);
                if (done == 0) break;
                _buffer.Span[..(int)done].CopyTo(target);
                target = target[(int)done..];
                offset += done;
            }

            target.Clear();
        }
    }

    public void ReadCopy(long block, Span<byte> target)
    {
        target.Clear();
        if (!File.Exists(_copyPath)) return;
        using SafeFileHandle copy = OpenCopy(FileMode.Open, FileAccess.Read);
        _ = RandomAccess.Read(copy, target, VdiFormat.OffsetOf(block));
    }

    public void WriteCopy(long block, ReadOnlySpan<byte> content, bool isFlushed)
    {
        using SafeFileHandle copy = OpenCopy(FileMode.OpenOrCreate, FileAccess.Write);
        RandomAccess.Write(copy, content, VdiFormat.OffsetOf(block));
        if (isFlushed) RandomAccess.FlushToDisk(copy);
    }

    private SafeFileHandle OpenCopy(FileMode mode, FileAccess access)
    {
        try
        {
            if (mode == FileMode.OpenOrCreate && !File.Exists(_copyPath)) StoreFiles.Write(_copyPath, [], 0, mode);
            return File.OpenHandle(_copyPath, mode, access, FileShare.ReadWrite | FileShare.Delete);
        }
        catch (UnauthorizedAccessException failure)
        {
            throw new IOException(failure.Message, failure);
        }
    }

    public void Write(long block, ReadOnlySpan<byte> content) =>
        RandomAccess.Write(_handle, content, VdiFormat.OffsetOf(block));

    public IEnumerable<long> FindFreeSegments()
    {
        for (long segment = 1; ;)
        {
            long offset = segment * VdiFormat.SegmentSize;
            (bool isHole, long end) = FileHole.Find(_descriptor, offset);
            if (!isHole)
            {
                segment = end == long.MaxValue
                    ? FindEnd(segment)
                    : end / VdiFormat.SegmentSize + (end % VdiFormat.SegmentSize == 0 ? 0 : 1);
                continue;
            }

            for (; end == long.MaxValue || (segment + 1) * VdiFormat.SegmentSize <= end; segment++)
                yield return segment;
            segment++; // its end is in use
        }
    }

    public IEnumerable<long> FindUsedSegments()
    {
        long length = RandomAccess.GetLength(_handle);
        for (long segment = 1, offset; (offset = segment * VdiFormat.SegmentSize) < length;)
        {
            (bool isHole, long end) = FileHole.Find(_descriptor, offset);
            if (isHole && end == long.MaxValue) yield break;
            if (!isHole || end < offset + VdiFormat.SegmentSize) yield return segment++;
            else segment = end / VdiFormat.SegmentSize;
        }
    }

    public BlockStatus Allocate(long segment, bool isFlushedOften, bool isReserve)
    {
        int errno = FileHole.Allocate(_descriptor, segment * VdiFormat.SegmentSize, VdiFormat.SegmentSize);
        if (errno == 0 && isFlushedOften) SegmentPrewriter.Write(Path, segment);
        if (errno == LinuxError.NotSupported) return BlockStatus.Okay; // then the storage is found out to be full later
        BlockStatus status = LinuxError.ToStatus(errno);
        return status is BlockStatus.Okay or BlockStatus.NoSpace
            ? status
            : throw new LinuxException(errno, $"{Path}: no space can be allocated");
    }

    public BlockStatus Free(IReadOnlyList<BlockRun> runs)
    {
        foreach (BlockRun run in runs)
        {
            int errno = FileHole.Punch(_descriptor, VdiFormat.OffsetOf(run.First), VdiFormat.OffsetOf(run.Count));
            if (errno != 0) return LinuxError.ToStatus(errno);
        }

        return BlockStatus.Okay;
    }

    public async ValueTask DisposeAsync()
    {
        await Blocks.DisposeAsync().ConfigureAwait(false);
        _handle.Dispose();
        _descriptor.Dispose();
    }

    // Past the page cache, as the writer's I/O is: what is read into it while somebody writes past it may stay there as
    // it was.
    private static FileDescriptor OpenPast(string path, OpenFlags access)
    {
        try
        {
            return FileDescriptor.Open(path, access | OpenFlags.O_DIRECT);
        }
        catch (LinuxException failure) when (failure.Errno == LinuxError.InvalidArgument)
        {
            return FileDescriptor.Open(path, access);
        }
    }

    // A storage that does not know holes has data to its end.
    private long FindEnd(long segment) =>
        Math.Max(segment + 1, (RandomAccess.GetLength(_handle) + VdiFormat.SegmentSize - 1) / VdiFormat.SegmentSize);
}
