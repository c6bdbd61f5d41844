using System.Runtime.InteropServices;

namespace Ublkback.Linux;

/// <summary>Holes in files (fallocate(2)).</summary>
public static partial class FileHole
{
    /// <summary>FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE, linux/falloc.h.</summary>
    internal const int PunchMode = 2 | 1;

    /// <summary>
    /// Whether the file system can free a part of a file that is open for writing. Asks for a hole behind the file's end,
    /// which changes nothing.
    /// </summary>
    public static bool CanPunch(FileDescriptor file, long fileLength) =>
        fallocate(file, PunchMode, fileLength, MemoryMapping.PageSize) == 0;

    [LibraryImport("libc", SetLastError = true)]
    private static partial int fallocate(FileDescriptor file, int mode, long offset, long length);
}
