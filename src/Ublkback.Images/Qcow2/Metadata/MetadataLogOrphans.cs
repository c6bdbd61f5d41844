using Mono.Unix.Native;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>Removes the logs of images that are gone. Blocks.</summary>
internal static class MetadataLogOrphans
{
    /// <summary>Most logs of which nobody knows whether their images are still there; the oldest go first.</summary>
    public const int MaxUnknown = 32;

    private static int _isSearching;

    /// <summary>
    /// Begins <see cref="Remove"/> on a thread of its own, unless one is under way: the folder of another image
    /// may be on storage that does not answer. Any thread.
    /// </summary>
    public static void RemoveSoon(string folder, Action<string> warn)
    {
        if (Interlocked.Exchange(ref _isSearching, 1) != 0) return;
        new Thread(() =>
        {
            try
            {
                Remove(folder, warn);
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
    /// Removes logs of images that are gone. Of those with changes, or whose images cannot be looked for,
    /// <see cref="MaxUnknown"/> stay.
    /// </summary>
    /// <param name="folder">The folder; it need not be there.</param>
    /// <param name="warn">Takes a sentence on each log that is removed though its image may be there.</param>
    public static void Remove(string folder, Action<string> warn)
    {
        List<(DateTime Written, string Path)> unknown = [];
        foreach (string path in MetadataLogFolder.List(folder))
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

    // A log whose image is there is never locked here: who opens the image must find it.
    private static bool TryRemove(string path, bool whenUnknown, out bool isUnknown)
    {
        isUnknown = false;
        try
        {
            FileDescriptor file = FileDescriptor.Open(path, OpenFlags.O_RDWR);
            if (FileStatus.Of(file).Length != MetadataLog.Size)
            {
                using (file)
                {
                    isUnknown = true;
                    if (!whenUnknown || !MetadataLogFolder.TryLock(path, file)) return false;
                    File.Delete(path);
                    return true;
                }
            }

            using MetadataLog log = MetadataLog.In(path, file, isWritable: false);
            bool? hasImage = MetadataLogOwner.HasImage(log);
            // The image may have been moved to another file system.
            if (hasImage == false && log.IsSound && log.HasChanges) hasImage = null;
            isUnknown = hasImage is null;
            if (hasImage == true || (isUnknown && !whenUnknown)) return false;
            if (!MetadataLogFolder.TryLock(path, file) || MetadataLogOwner.HasImage(log) == true) return false;
            File.Delete(path);
            return true;
        }
        catch (Exception failure) when (failure is LinuxException or IOException or UnauthorizedAccessException)
        {
            return false; // somebody else removed it, or may
        }
    }
}
