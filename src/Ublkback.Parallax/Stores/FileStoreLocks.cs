using Mono.Unix.Native;
using Ublkback.Block;
using Ublkback.Linux.Kernel;

namespace Ublkback.Parallax.Stores;

/// <summary>
/// The locks of a store in a folder, beside those of its VDIs' writers. They end with their process. Any thread; blocks
/// it.
/// </summary>
internal static class FileStoreLocks
{
    private const long PinBase = 1L << 61; // bytes whose locks keep snapshots from being deleted
    private const int PatienceMs = 10_000;
    private const int RetryDelayMs = 5;

    /// <summary>As <see cref="IVdiStore.Pin"/>, for the file of a VDI.</summary>
    public static IDisposable Pin(string path, ulong snapshot)
    {
        FileDescriptor file = FileDescriptor.Open(path, OpenFlags.O_RDONLY);
        if (OfdLock.TryShare(file, PinBase + (long)snapshot)) return file;
        file.Dispose();
        throw new TargetException("the snapshot is being deleted");
    }

    /// <summary>As <see cref="IVdiStore.TryForbidPins"/>, for the file of a VDI.</summary>
    public static IDisposable? TryForbidPins(string path, ulong snapshot)
    {
        FileDescriptor file = FileDescriptor.Open(path, OpenFlags.O_RDWR);
        if (OfdLock.TryExclude(file, PinBase + (long)snapshot)) return file;
        file.Dispose();
        return null;
    }

    /// <summary>As <see cref="IVdiStore.LockStructure"/>, for a folder.</summary>
    public static IStoreLock LockStructure(string folder) =>
        LockByte(folder, 0, "another command changes the VDIs of");

    /// <summary>As <see cref="IVdiStore.LockCollection"/>, for a folder.</summary>
    public static IStoreLock LockCollection(string folder) =>
        LockByte(folder, 1, "somebody is looking already for what is not needed any more in");

    private static FileStoreLock LockByte(string folder, long position, string what)
    {
        FileDescriptor file = FileDescriptor.Open(Path.Combine(folder, "store"), OpenFlags.O_RDWR | OpenFlags.O_CREAT);
        for (int waited = 0; !OfdLock.TryExclude(file, position); waited += RetryDelayMs)
        {
            if (waited < PatienceMs)
            {
                Thread.Sleep(RetryDelayMs);
                continue;
            }

            file.Dispose();
            throw new ImageInUseException(
                $"{what} {folder}, and has not ended for {PatienceMs / 1000} s", "try again later");
        }

        return new FileStoreLock(file);
    }
}
