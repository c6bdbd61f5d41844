using Ublkback.Block;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Raw;

/// <summary>
/// Keeps a disk's I/O apart from that of a process that served it before and died: the kernel goes on with what was
/// submitted, and a write of the dead must not land on one of the living.
/// </summary>
/// <remarks>
/// All I/O of a disk is on one open file description, which holds a read lock on a byte of its own. The kernel keeps
/// the description, and so the lock, until the last I/O on it has ended; hence the byte is free when all has.
/// </remarks>
internal static class ImageFence
{
    private const long Base = 1L << 62;
    private const int RetryDelayMs = 2;
    private const int PatienceMs = 30_000;

    /// <summary>Waits until an earlier process's I/O has ended. Blocks, for half a minute at most.</summary>
    /// <exception cref="TargetException">It has not.</exception>
    public static void Take(string path, FileDescriptor file, ImageOpening opening)
    {
        long position = Base | opening.DiskId;
        OfdLock.TryShare(file, position); // nobody ever takes it exclusively
        long deadline = Environment.TickCount64 + PatienceMs;
        while (OfdLock.IsHeldByAnother(file, position))
        {
            if (Environment.TickCount64 > deadline)
                throw new TargetException(
                    $"{path}: I/O of an earlier daemon has not ended for 30 s: is its storage stalled?");
            Thread.Sleep(RetryDelayMs);
        }
    }
}
