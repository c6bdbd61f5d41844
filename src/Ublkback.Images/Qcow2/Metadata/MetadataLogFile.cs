using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Raw;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// Finds the log that a killed process left of the image as it is now: the image is dirty and has the log's generation,
/// and all that the log names is in the file. Blocks.
/// </summary>
internal static class MetadataLogFile
{
    /// <summary>Opens the log of an image that is being opened.</summary>
    /// <param name="raw">The file the image is in.</param>
    /// <param name="header">What the image says of itself.</param>
    /// <param name="opening">For whom.</param>
    /// <param name="isBelieved">Whether it has what a killed process left.</param>
    /// <exception cref="TargetException">
    /// The image is to be read only, and what it holds is not all in its file; or that cannot be seen.
    /// </exception>
    /// <exception cref="LinuxException">There is no room for it.</exception>
    public static MetadataLog Open(RawFile raw, Qcow2Header header, ImageOpening opening, out bool isBelieved)
    {
        isBelieved = false;
        if (opening.StateFolder is null) return MetadataLog.InMemory();
        string path = MetadataLogFolder.PathOf(raw, opening.StateFolder);
        string? left = FindLeftBehind(path, raw, header, opening.StateFolder, isLocked: true, out bool hasChanges);
        isBelieved = left is not null;
        if (opening.IsReadOnly)
        {
            if (hasChanges)
                throw new TargetException(
                    $"{raw.Path} has changes of a killed daemon that are not in the file yet",
                    "run 'ublkback image check --repair', or attach it for writing");
            if (!isBelieved && IsIncomplete(header)) opening.Warn(MissingLog(raw));
            return MetadataLog.InMemory();
        }

        if (left is null)
        {
            MetadataLogOrphans.RemoveSoon(opening.StateFolder, opening.Warn);
            if (!opening.OutlivesProcess)
            {
                if (IsIncomplete(header)) opening.Warn(MissingLog(raw));
                return MetadataLog.InMemory();
            }

            Directory.CreateDirectory(
                opening.StateFolder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }

        MetadataLog log = MetadataLogFolder.Open(path);
        isBelieved = left == path && log.IsSound && log.IsOf(header.Generation); // it may have been removed meanwhile
        if (isBelieved) log.Generation = header.Generation;
        else isBelieved = Begin(log, path, left, raw, header, opening.Warn);
        return log;
    }

    /// <summary>Whether a killed process left changes of an image that are not in its file.</summary>
    /// <param name="raw">The file the image is in.</param>
    /// <param name="header">What the image says of itself.</param>
    /// <param name="opening">For whom.</param>
    /// <param name="isMissing">True if there should be a log, and is none.</param>
    /// <exception cref="TargetException">That cannot be seen.</exception>
    public static bool HasChanges(RawFile raw, Qcow2Header header, ImageOpening opening, out bool isMissing)
    {
        isMissing = IsIncomplete(header);
        if (opening.StateFolder is not string folder) return false;
        string path = MetadataLogFolder.PathOf(raw, folder);
        isMissing &= FindLeftBehind(path, raw, header, folder, isLocked: false, out bool hasChanges) is null;
        return hasChanges;
    }

    // Without its log it may lack what was written after its last flush.
    private static bool IsIncomplete(Qcow2Header header) => header.IsDirty && header.Generation != 0;

    private static string MissingLog(RawFile raw) =>
        $"{raw.Path} was in use when its daemon or its host ended, and there is no log of that here: what was written "
            + "after the last flush may be missing";

    // Returns whether it has the changes of the log that was left at another path.
    private static bool Begin(
        MetadataLog log, string path, string? left, RawFile raw, Qcow2Header header, Action<string> warn)
    {
        bool isUnreadable = !log.IsSound && !log.IsNew;
        bool isOfAnotherState = log.IsSound && log.HasChanges;
        log.Clear();
        using (MetadataLog? other = left is null || left == path ? null : TryPeek(left, raw, header))
        {
            if (other is not null && log.TryCopyChanges(other, header.Generation) && IsOf(log, raw, header))
            {
                MetadataLogOwner.Set(log, raw);
                return true;
            }
        }

        log.Clear();
        MetadataLogOwner.Set(log, raw);
        if (isUnreadable) warn($"{path}, the log of {raw.Path}, cannot be read: it is discarded");
        else if (isOfAnotherState)
            warn($"{raw.Path} is not in the state in which a killed daemon left it (restored, or written by another "
                + $"program): the changes in {path} are discarded");
        else if (IsIncomplete(header)) warn(MissingLog(raw));
        return false;
    }

    // The image may have been copied, moved, or mounted from another device since: then its log has another name.
    private static string? FindLeftBehind(
        string path, RawFile raw, Qcow2Header header, string folder, bool isLocked, out bool hasChanges)
    {
        hasChanges = false;
        if (!IsIncomplete(header)) return null;
        try
        {
            using MetadataLog? own = MetadataLogFolder.TryRead(path, waits: isLocked);
            if (own is not null && IsOf(own, raw, header))
            {
                hasChanges = own.HasChanges;
                return path;
            }
        }
        catch (LinuxException failure)
        {
            throw new TargetException(
                $"{raw.Path} was not closed, and whether a killed daemon left changes of it in "
                    + $"{path} cannot be seen ({LinuxError.Describe(failure.Errno)})",
                "run this as root", failure);
        }

        foreach (string other in MetadataLogFolder.List(folder))
        {
            if (other == path) continue;
            using MetadataLog? log = TryPeek(other, raw, header);
            if (log is null) continue;
            hasChanges = log.HasChanges;
            return other;
        }

        return null;
    }

    // The log of another image, which may be in use: the image may be a copy of that.
    private static MetadataLog? TryPeek(string path, RawFile raw, Qcow2Header header)
    {
        MetadataLog? log;
        try
        {
            log = MetadataLogFolder.TryPeek(path);
        }
        catch (LinuxException)
        {
            return null; // of another user
        }

        if (log is null || IsOf(log, raw, header)) return log;
        log.Dispose();
        return null;
    }

    private static bool IsOf(MetadataLog log, RawFile raw, Qcow2Header header) =>
        log.IsSound && log.IsOf(header.Generation) && NamesWhatIsThere(log, raw, header);

    // A cluster is in the file before the log names it, also while the file grows. So a file that is shorter is a copy.
    private static bool NamesWhatIsThere(MetadataLog log, RawFile raw, Qcow2Header header)
    {
        Qcow2Layout layout = header.Layout;
        for (long number = log.Committed; number < log.Added; number++)
        {
            (long cluster, L2Entry entry) = log[number];
            ClusterKind kind = entry.KindIn(layout, header.Version);
            if (cluster < 0 || cluster >= (long)header.L1Size * layout.EntriesPerTable) return false;
            if (kind is ClusterKind.Invalid or ClusterKind.Compressed) return false;
            if (entry.HostOffset > raw.Length - layout.ClusterSize && !raw.IsDevice) return false;
        }

        return true;
    }
}
