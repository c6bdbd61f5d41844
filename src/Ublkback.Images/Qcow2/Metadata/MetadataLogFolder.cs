using System.Globalization;
using Mono.Unix.Native;
using Ublkback.Images.Raw;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// The folder of all logs: a file for each image, named after the image's device and inode, or after the number of the
/// block device it is on. A log is locked while it is in use. Blocks.
/// </summary>
internal static class MetadataLogFolder
{
    /// <summary>Most logs that are looked at in one search.</summary>
    public const int MaxLookedAt = 1024;

    private const string Ending = ".qcow2-log";
    private const long UsePosition = 0;

    /// <summary>Where an image's log is.</summary>
    public static string PathOf(RawFile raw, string folder) => Path.Combine(folder, raw.IsDevice
        ? string.Create(CultureInfo.InvariantCulture, $"device-{raw.Status.RawDevice:x}{Ending}")
        : string.Create(CultureInfo.InvariantCulture, $"{raw.Status.Device:x}-{raw.Status.Inode:x}{Ending}"));

    /// <summary>Opens a log to use it, or makes one that says nothing; it is locked for the caller.</summary>
    /// <exception cref="LinuxException">There is no room for it.</exception>
    public static MetadataLog Open(string path)
    {
        while (true)
        {
            FileDescriptor file = FileDescriptor.Open(path, OpenFlags.O_RDWR | OpenFlags.O_CREAT);
            try
            {
                OfdLock.Exclude(file, UsePosition);
                if (IsAt(path, file))
                {
                    int errno = Syscall.posix_fallocate(file.Number, 0, MetadataLog.Size);
                    if (errno != 0)
                    {
                        File.Delete(path);
                        throw new LinuxException(errno, path);
                    }

                    return MetadataLog.In(path, file, isWritable: true);
                }
            }
            catch
            {
                file.Dispose();
                throw;
            }

            file.Dispose(); // somebody removed it before it was locked
        }
    }

    /// <summary>
    /// Opens a log to read it; null if there is none, or a process uses it. Nobody changes it meanwhile.
    /// </summary>
    /// <param name="path">Where it is.</param>
    /// <param name="waits">True if nobody can have its image open, so that who has locked it is about to go.</param>
    /// <exception cref="LinuxException">It cannot be opened.</exception>
    public static MetadataLog? TryRead(string path, bool waits) =>
        TryRead(path, file =>
        {
            if (!waits) return OfdLock.TryShare(file, UsePosition);
            OfdLock.Share(file, UsePosition);
            return true;
        });

    /// <summary>Opens a log to read it, though a process may be using it; null if there is none.</summary>
    /// <exception cref="LinuxException">It cannot be opened.</exception>
    public static MetadataLog? TryPeek(string path) => TryRead(path, _ => true);

    /// <summary>The logs of a folder, which need not be there; at most <see cref="MaxLookedAt"/>.</summary>
    public static IReadOnlyList<string> List(string folder)
    {
        try
        {
            return [.. Directory.EnumerateFiles(folder, "*" + Ending).Take(MaxLookedAt)];
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            return []; // no log was ever made, or this user makes none
        }
    }

    /// <summary>Locks a log against everybody, unless somebody uses it or it is not there any more.</summary>
    public static bool TryLock(string path, FileDescriptor file) =>
        OfdLock.TryExclude(file, UsePosition) && IsAt(path, file);

    private static MetadataLog? TryRead(string path, Func<FileDescriptor, bool> locks)
    {
        FileDescriptor file;
        try
        {
            file = FileDescriptor.Open(path, OpenFlags.O_RDONLY);
        }
        catch (LinuxException failure) when (failure.Errno == LinuxError.NoEntry)
        {
            return null;
        }

        if (locks(file) && FileStatus.Of(file).Length == MetadataLog.Size)
            return MetadataLog.In(path, file, isWritable: false);
        file.Dispose();
        return null;
    }

    private static bool IsAt(string path, FileDescriptor file)
    {
        try
        {
            using FileDescriptor place = FileDescriptor.OpenPath(path);
            FileStatus there = FileStatus.Of(place), own = FileStatus.Of(file);
            return (there.Device, there.Inode) == (own.Device, own.Inode);
        }
        catch (LinuxException failure) when (failure.Errno == LinuxError.NoEntry)
        {
            return false;
        }
    }
}
