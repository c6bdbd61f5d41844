using System.Diagnostics;
using Mono.Unix.Native;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Messages;

namespace Ublkback.Parallax.Stores;

/// <summary>
/// The locks of a store in a folder, beside those of its VDIs' writers. They end with their process. Any thread; blocks
/// it.
/// </summary>
internal static class FileStoreLocks
{
    private const long PinBase = 1L << 61; // bytes whose locks keep snapshots from being deleted

    private static readonly TimeSpan OwnPatience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan RetryDelay = TimeSpan.FromMilliseconds(5);

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
    public static IStoreLock LockStructure(string folder) => LockByte(
        folder, 0, "another command that changes the VDIs of", OwnPatience, CancellationToken.None);

    /// <summary>As <see cref="IVdiStore.LockCollection"/>, for a folder.</summary>
    public static IStoreLock LockCollection(string folder, TimeSpan patience, CancellationToken cancellation) =>
        LockByte(
            folder, 1, "another process that collects or checks",
            patience > OwnPatience ? patience : OwnPatience, cancellation);

    private static FileStoreLock LockByte(
        string folder, long position, string rival, TimeSpan patience, CancellationToken cancellation)
    {
        FileDescriptor file = FileDescriptor.Open(Path.Combine(folder, "store"), OpenFlags.O_RDWR | OpenFlags.O_CREAT);
        try
        {
            using WaitNotice? wait = WaitNotice.Begin(() => $"{rival} {folder}");
            for (long began = Stopwatch.GetTimestamp(); !OfdLock.TryExclude(file, position); Thread.Sleep(RetryDelay))
            {
                cancellation.ThrowIfCancellationRequested();
                if (Stopwatch.GetElapsedTime(began) > patience)
                    throw new ImageInUseException(
                        $"{rival} {folder} has not ended for {patience.TotalSeconds:0} s", "try again later");
            }

            return new FileStoreLock(file);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }
}
