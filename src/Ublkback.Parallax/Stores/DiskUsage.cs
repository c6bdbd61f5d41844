using Mono.Unix.Native;

namespace Ublkback.Parallax.Stores;

/// <summary>What files take in the file system.</summary>
internal static class DiskUsage
{
    private const int UnitBytes = 512; // of st_blocks, stat(3type)

    /// <summary>Bytes that are allocated for a file.</summary>
    public static long Of(string path) => Syscall.stat(path, out Stat status) == 0 ? status.st_blocks * UnitBytes : 0;
}
