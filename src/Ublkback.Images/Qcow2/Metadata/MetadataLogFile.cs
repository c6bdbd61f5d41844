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
        string? left = FindLeftBehind(path, raw, header, opening.StateFolder, isLocked: true);
        if (left is not null && opening.IsReadOnly)
            throw new TargetException(
                $"{raw.Path} has changes of a killed daemon that are not in the file yet",
                "run 'ublkback image check --repair', or attach it for writing");
        if (opening.IsReadOnly) return MetadataLog.InMemory();
        if (left is null)
        {
            MetadataLogOrphans.RemoveSoon(opening.StateFolder, opening.Warn);
            if (!opening.OutlivesProcess) return MetadataLog.InMemory();
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
    /// <exception cref="TargetException">That cannot be seen.</exception>
    public static bool HasChanges(RawFile raw, Qcow2Header header, ImageOpening opening) =>
        opening.StateFolder is string folder
            && FindLeftBehind(MetadataLogFolder.PathOf(raw, folder), raw, header, folder, isLocked: false) is not null;

    // Returns whether it has the changes of the log that was left at another path.
    private static bool Begin(
        MetadataLog log, string path, string? left, RawFile raw, Qcow2Header header, Action<string> warn)
    {
        using MetadataLog? other = left is null || left == path ? null : TryRead(left, raw, header);
        if (!log.IsSound && !log.IsNew) warn($"{path}, the log of {raw.Path}, cannot be read: it is discarded");
        if (log.IsSound && log.HasChanges && other is null)
            warn($"{raw.Path} is not in the state in which a killed daemon left it (restored, or written by another "
                + $"program): the changes in {path} are discarded");
        log.Clear();
        MetadataLogOwner.Set(log, raw);
        if (other is null) return false;
        log.CopyChanges(other, header.Generation);
        return true;
    }

    // The image may have been copied, moved, or mounted from another device since: then its log has another name.
    private static string? FindLeftBehind(
        string path, RawFile raw, Qcow2Header header, string folder, bool isLocked)
    {
        if (!header.IsDirty || header.Generation == 0) return null;
        try
        {
            using MetadataLog? own = MetadataLogFolder.TryRead(path, waits: isLocked);
            if (own is not null && IsOf(own, raw, header)) return path;
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
            using MetadataLog? log = TryRead(other, raw, header);
            if (log is not null) return other;
        }

        return null;
    }

    private static MetadataLog? TryRead(string path, RawFile raw, Qcow2Header header)
    {
        MetadataLog? log;
        try
        {
            log = MetadataLogFolder.TryRead(path, waits: false);
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
