using System.Buffers.Binary;
using System.Globalization;
using System.Text;
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
    /// <summary>Most logs of which nobody knows whether their images are still there; the oldest go first.</summary>
    public const int MaxUnknown = 32;

    /// <summary>Most logs that are looked at in one search for those of images that are gone.</summary>
    public const int MaxLookedAt = 1024;

    private const string Ending = ".qcow2-log";
    private const long UsePosition = 0;

    // In a log's owner: the image's device; its file handle's type, length, bytes; its path's length, the path.
    private const int HandleTypeAt = 8;
    private const int HandleLengthAt = 12;
    private const int HandleAt = 16;
    private const int PathLengthAt = HandleAt + FileHandle.MaxBytes;
    private const int PathAt = PathLengthAt + 4;

    private static int _isSearching;

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

    /// <summary>Opens a log to read it; null if there is none, or a process uses it.</summary>
    /// <param name="path">Where it is.</param>
    /// <param name="waits">True if nobody can have its image open, so that who has locked it is about to go.</param>
    /// <exception cref="LinuxException">It cannot be opened.</exception>
    public static MetadataLog? TryRead(string path, bool waits)
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

        if (waits) OfdLock.Share(file, UsePosition);
        else if (OfdLock.IsHeldByAnother(file, UsePosition)) return Close(file);
        return FileStatus.Of(file).Length == MetadataLog.Size
            ? MetadataLog.In(path, file, isWritable: false)
            : Close(file);
    }

    /// <summary>Has a log say which file its image is in.</summary>
    public static void SetOwner(MetadataLog log, RawFile raw)
    {
        Span<byte> owner = log.Owner;
        owner.Clear();
        // The node of a device is made anew, so its handle says nothing.
        if (!raw.IsDevice && FileHandle.Of(raw.File) is FileHandle handle)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(owner, raw.Status.Device);
            BinaryPrimitives.WriteInt32LittleEndian(owner[HandleTypeAt..], handle.Type);
            BinaryPrimitives.WriteInt32LittleEndian(owner[HandleLengthAt..], handle.Bytes.Length);
            handle.Bytes.CopyTo(owner[HandleAt..]);
        }

        ReadOnlySpan<byte> path = Encoding.UTF8.GetBytes(raw.Path);
        if (path.Length > owner.Length - PathAt) return;
        BinaryPrimitives.WriteInt32LittleEndian(owner[PathLengthAt..], path.Length);
        path.CopyTo(owner[PathAt..]);
    }

    /// <summary>
    /// Begins <see cref="RemoveOrphans"/> on a thread of its own, unless one is under way: the folder of another image
    /// may be on storage that does not answer. Any thread.
    /// </summary>
    public static void RemoveOrphansSoon(string folder, Action<string> warn)
    {
        if (Interlocked.Exchange(ref _isSearching, 1) != 0) return;
        new Thread(() =>
        {
            try
            {
                RemoveOrphans(folder, warn);
            }
            catch (Exception failure)
            {
                warn($"the search for logs of images that are gone has ended: {failure.Message}");
            }
            finally
            {
                Volatile.Write(ref _isSearching, 0);
            }
        })
        { IsBackground = true, Name = "qcow2 logs" }.Start();
    }

    /// <summary>
    /// Removes logs of images that are gone. Of those whose images cannot be looked for, <see cref="MaxUnknown"/> stay.
    /// </summary>
    /// <param name="folder">The folder; it need not be there.</param>
    /// <param name="warn">Takes a sentence on each log that is removed though its image may be there.</param>
    public static void RemoveOrphans(string folder, Action<string> warn)
    {
        List<(DateTime Written, string Path)> unknown = [];
        foreach (string path in ListLogs(folder))
        {
            if (!TryRemove(path, whenUnknown: false, out bool isUnknown) && isUnknown)
                unknown.Add((File.GetLastWriteTimeUtc(path), path));
        }

        unknown.Sort();
        foreach ((_, string path) in unknown.SkipLast(MaxUnknown))
        {
            if (TryRemove(path, whenUnknown: true, out _))
                warn($"the log {path} was removed: its image was not found, and {MaxUnknown} newer logs are like it");
        }
    }

    private static MetadataLog? Close(FileDescriptor file)
    {
        file.Dispose();
        return null;
    }

    private static string[] ListLogs(string folder)
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

    // A log whose image is there is never locked here: who opens the image must find it.
    private static bool TryRemove(string path, bool whenUnknown, out bool isUnknown)
    {
        isUnknown = false;
        try
        {
            using FileDescriptor file = FileDescriptor.Open(path, OpenFlags.O_RDWR);
            bool? hasImage = HasImage(file);
            isUnknown = hasImage is null;
            if (hasImage == true || (isUnknown && !whenUnknown)) return false;
            if (!OfdLock.TryExclude(file, UsePosition) || !IsAt(path, file) || HasImage(file) == true) return false;
            File.Delete(path);
            return true;
        }
        catch (Exception failure) when (failure is LinuxException or IOException or UnauthorizedAccessException)
        {
            return false; // somebody else removed it, or may
        }
    }

    private static bool? HasImage(FileDescriptor file)
    {
        if (FileStatus.Of(file).Length != MetadataLog.Size) return null;
        byte[] bytes = new byte[MetadataLog.EntriesAt - MetadataLog.OwnerAt];
        using (FileStream stream = new(file.DevicePath, FileMode.Open, FileAccess.Read))
        {
            stream.Position = MetadataLog.OwnerAt;
            stream.ReadExactly(bytes);
        }

        int handleLength = BinaryPrimitives.ReadInt32LittleEndian(bytes.AsSpan(HandleLengthAt));
        int pathLength = BinaryPrimitives.ReadInt32LittleEndian(bytes.AsSpan(PathLengthAt));
        if (handleLength is <= 0 or > FileHandle.MaxBytes || pathLength <= 0 || pathLength > bytes.Length - PathAt)
            return null;
        FileHandle handle = new(
            BinaryPrimitives.ReadInt32LittleEndian(bytes.AsSpan(HandleTypeAt)),
            bytes.AsSpan(HandleAt, handleLength).ToArray());
        string image = Encoding.UTF8.GetString(bytes, PathAt, pathLength);
        string? home = Path.GetDirectoryName(image);
        if (home is null || !Directory.Exists(home)) return null;
        using FileDescriptor folder = FileDescriptor.Open(home, OpenFlags.O_RDONLY | OpenFlags.O_DIRECTORY);
        // Another file system may be mounted there now, or none.
        if (FileStatus.Of(folder).Device != BinaryPrimitives.ReadUInt64LittleEndian(bytes)) return null;
        bool? isThere = handle.IsThere(folder);
        // Some file systems forget the handles of files that nobody uses.
        return isThere == false ? HasHandle(image, handle) : isThere;
    }

    private static bool HasHandle(string path, FileHandle handle)
    {
        try
        {
            using FileDescriptor place = FileDescriptor.OpenPath(path);
            return FileHandle.Of(place) is FileHandle there && there.Type == handle.Type
                && there.Bytes.AsSpan().SequenceEqual(handle.Bytes);
        }
        catch (LinuxException failure) when (failure.Errno == LinuxError.NoEntry)
        {
            return false;
        }
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
