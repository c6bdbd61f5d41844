using Mono.Unix.Native;
using Ublkback.Linux.Kernel;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Containers;

/// <summary>
/// Writes segments before they are used: a flush after a write to what was never written has the file system note that
/// in its journal, which takes twice as long. Blocks the thread.
/// </summary>
internal static class SegmentPrewriter
{
    private const int PieceSize = 128 << 10; // others wait no longer than one takes

    private static readonly Memory<byte> Zeros = PinnedMemory.AllocatePages(PieceSize);

    /// <summary>Writes one, past the page cache. Where that cannot be, nothing is lost but time.</summary>
    public static void Write(string path, long segment)
    {
        try
        {
            using FileDescriptor file = FileDescriptor.Open(path, OpenFlags.O_WRONLY | OpenFlags.O_DIRECT);
            nint zeros = PinnedMemory.AddressNumberOf(Zeros);
            long end = (segment + 1) * VdiFormat.SegmentSize;
            for (long at = segment * VdiFormat.SegmentSize; at < end; at += PieceSize)
            {
                if (Syscall.pwrite(file.Number, zeros, PieceSize, at) != PieceSize) return;
            }

            _ = Syscall.fdatasync(file.Number);
        }
        catch (LinuxException)
        {
            // The file system knows no direct I/O.
        }
    }
}
