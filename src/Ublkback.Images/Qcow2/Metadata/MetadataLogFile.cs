using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Raw;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// Decides whether the log that a killed process left is of the image as it is now: the image is dirty and has the
/// log's generation, and all that the log names is in the file. Blocks.
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
        isBelieved = IsLeftBehind(path, raw, header, isLocked: true);
        if (isBelieved && opening.IsReadOnly)
            throw new TargetException(
                $"{raw.Path} has changes of a killed daemon that are not in the file yet",
                "run 'ublkback image check --repair', or attach it for writing");
        if (opening.IsReadOnly) return MetadataLog.InMemory();
        if (!isBelieved)
        {
            MetadataLogFolder.RemoveOrphansSoon(opening.StateFolder, opening.Warn);
            if (!opening.OutlivesProcess) return MetadataLog.InMemory();
            Directory.CreateDirectory(
                opening.StateFolder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }

        MetadataLog log = MetadataLogFolder.Open(path);
        isBelieved = isBelieved && log.IsSound && log.IsOf(header.Generation); // it may have been removed meanwhile
        if (isBelieved) log.Generation = header.Generation;
        else Begin(log, path, raw, opening.Warn);
        return log;
    }

    /// <summary>Whether a killed process left changes of an image that are not in its file.</summary>
    /// <exception cref="TargetException">That cannot be seen.</exception>
    public static bool HasChanges(RawFile raw, Qcow2Header header, ImageOpening opening) =>
        opening.StateFolder is not null
            && IsLeftBehind(MetadataLogFolder.PathOf(raw, opening.StateFolder), raw, header, isLocked: false);

    private static void Begin(MetadataLog log, string path, RawFile raw, Action<string> warn)
    {
        if (!log.IsSound && !log.IsNew) warn($"{path}, the log of {raw.Path}, cannot be read: it is discarded");
        if (log.IsSound && log.HasChanges)
            warn($"{raw.Path} is not in the state in which a killed daemon left it (restored, or written by another "
                + $"program): the changes in {path} are discarded");
        log.Clear();
        MetadataLogFolder.SetOwner(log, raw);
    }

    private static bool IsLeftBehind(string path, RawFile raw, Qcow2Header header, bool isLocked)
    {
        if (!header.IsDirty) return false;
        try
        {
            using MetadataLog? log = MetadataLogFolder.TryRead(path, waits: isLocked);
            return log is { IsSound: true } && log.IsOf(header.Generation) && NamesWhatIsThere(log, raw, header);
        }
        catch (LinuxException failure)
        {
            throw new TargetException(
                $"{raw.Path} was not closed, and whether a killed daemon left changes of it in "
                    + $"{path} cannot be seen ({LinuxError.Describe(failure.Errno)})",
                "run this as root", failure);
        }
    }

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
