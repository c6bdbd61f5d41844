using Microsoft.Win32.SafeHandles;
using Ublkback.Block;
using Ublkback.Images;
using Ublkback.Linux;

namespace Ublkback.Parallax;

/// <summary>A VDI's file in a file system: a free segment is a hole.</summary>
internal sealed class FileContainer : IVdiContainer
{
    private readonly SafeFileHandle _handle;
    private readonly FileDescriptor _descriptor;

    private FileContainer(string path, IBlockImage blocks, SafeFileHandle handle, FileDescriptor descriptor)
    {
        Path = path;
        Blocks = blocks;
        _handle = handle;
        _descriptor = descriptor;
    }

    public string Path { get; }

    public IBlockImage Blocks { get; }

    /// <summary>Opens a file. Blocks the thread.</summary>
    /// <param name="path">Its path.</param>
    /// <param name="cache">As the option <c>cache</c> of raw images.</param>
    /// <param name="isLocked">Whether it is locked: against all others, or if it is only read, against those who write.</param>
    /// <param name="opening">Who opens it.</param>
    /// <exception cref="TargetException">It cannot be opened.</exception>
    public static FileContainer Open(string path, string cache, bool isLocked, ImageOpening opening)
    {
        Dictionary<string, string> options = new() { ["cache"] = cache, ["share"] = isLocked ? "no" : "unsafe" };
        IBlockImage blocks = RawImageOpener.Open(new BlockTarget([], BlockTarget.RawScheme, path, options), opening);
        try
        {
            FileAccess access = opening.IsReadOnly ? FileAccess.Read : FileAccess.ReadWrite;
            SafeFileHandle handle = File.OpenHandle(path, FileMode.Open, access, FileShare.ReadWrite | FileShare.Delete);
            FileDescriptor descriptor = FileDescriptor.Open(path, opening.IsReadOnly ? Mono.Unix.Native.OpenFlags.O_RDONLY : Mono.Unix.Native.OpenFlags.O_RDWR);
            return new FileContainer(path, blocks, handle, descriptor);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            blocks.DisposeAsync().AsTask().GetAwaiter().GetResult();
            throw new TargetException($"{path} cannot be opened: {failure.Message}", failure);
        }
    }

    public void Read(long block, Span<byte> target)
    {
        long offset = VdiFormat.OffsetOf(block);
        while (target.Length > 0)
        {
            int done = RandomAccess.Read(_handle, target, offset);
            if (done == 0) break;
            target = target[done..];
            offset += done;
        }

        target.Clear();
    }

    /// <summary>Writes what is not part of the disk. Blocks the thread.</summary>
    public void Write(long block, ReadOnlySpan<byte> content) => RandomAccess.Write(_handle, content, VdiFormat.OffsetOf(block));

    public IEnumerable<long> FindFreeSegments()
    {
        for (long segment = 1; ;)
        {
            long offset = segment * VdiFormat.SegmentSize;
            (bool isHole, long end) = FileHole.Find(_descriptor, offset);
            if (!isHole)
            {
                segment = end == long.MaxValue ? FindEnd(segment) : end / VdiFormat.SegmentSize + (end % VdiFormat.SegmentSize == 0 ? 0 : 1);
                continue;
            }

            for (; end == long.MaxValue || (segment + 1) * VdiFormat.SegmentSize <= end; segment++) yield return segment;
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

    public BlockStatus Allocate(long segment, bool isFlushedOften)
    {
        int errno = FileHole.Allocate(_descriptor, segment * VdiFormat.SegmentSize, VdiFormat.SegmentSize);
        if (errno == 0 && isFlushedOften) SegmentPrewriter.Write(Path, segment);
        return errno == LinuxError.NotSupported ? BlockStatus.Okay : LinuxError.ToStatus(errno); // then the storage is found out to be full later
    }

    public BlockStatus Free(long block, long count) =>
        LinuxError.ToStatus(FileHole.Punch(_descriptor, VdiFormat.OffsetOf(block), VdiFormat.OffsetOf(count)));

    public async ValueTask DisposeAsync()
    {
        await Blocks.DisposeAsync().ConfigureAwait(false);
        _handle.Dispose();
        _descriptor.Dispose();
    }

    // A storage that does not know holes has data to its end.
    private long FindEnd(long segment) => Math.Max(segment + 1, (RandomAccess.GetLength(_handle) + VdiFormat.SegmentSize - 1) / VdiFormat.SegmentSize);
}
