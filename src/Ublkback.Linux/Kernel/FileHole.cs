using System.Runtime.InteropServices;
using Mono.Unix.Native;

namespace Ublkback.Linux.Kernel;

/// <summary>Holes in files (fallocate(2), lseek(2)).</summary>
public static partial class FileHole
{
    /// <summary>FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE, linux/falloc.h.</summary>
    internal const int PunchMode = 2 | 1;

    private const int SeekData = 3; // SEEK_DATA, linux/fs.h
    private const int SeekHole = 4; // SEEK_HOLE

    /// <summary>
    /// Whether the file system can free a part of a file that is open for writing. Asks for a hole behind the file's
    /// end, which changes nothing.
    /// </summary>
    public static bool CanPunch(FileDescriptor file, long fileLength) =>
        fallocate(file, PunchMode, fileLength, MemoryMapping.PageSize) == 0;

    /// <summary>
    /// Tells whether a byte of a file is in a hole, and where that, or the data, ends. A storage that does not know
    /// holes has data everywhere. May block.
    /// </summary>
    public static (bool IsHole, long End) Find(FileDescriptor file, long offset)
    {
        long data = lseek(file, offset, SeekData);
        if (data > offset) return (true, data);
        // no data from there on
        if (data < 0) return (Marshal.GetLastPInvokeError() == (int)Errno.ENXIO, long.MaxValue);
        long hole = lseek(file, offset, SeekHole);
        return (false, hole > offset ? hole : long.MaxValue);
    }

    /// <summary>
    /// Has storage for a part of a file that is open for writing, and makes the file that long; 0 or an error number.
    /// Blocks.
    /// </summary>
    public static int Allocate(FileDescriptor file, long offset, long length) =>
        fallocate(file, 0, offset, length) == 0 ? 0 : Marshal.GetLastPInvokeError();

    /// <summary>Frees a part of a file; 0 or an error number. Blocks.</summary>
    public static int Punch(FileDescriptor file, long offset, long length) =>
        fallocate(file, PunchMode, offset, length) == 0 ? 0 : Marshal.GetLastPInvokeError();

    [LibraryImport("libc", SetLastError = true)]
    private static partial int fallocate(FileDescriptor file, int mode, long offset, long length);

    [LibraryImport("libc", SetLastError = true)]
    private static partial long lseek(FileDescriptor file, long offset, int whence);
}
