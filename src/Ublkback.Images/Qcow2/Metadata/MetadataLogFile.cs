using System.Globalization;
using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Raw;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// Finds the <see cref="MetadataLog"/> of an image: a file that has the name of the file the image is in. What a killed
/// process left there is true as long as nobody has written the image since, which its dirty bit says.
/// </summary>
internal static class MetadataLogFile
{
    /// <summary>Opens the log of an image that is being opened. Blocks.</summary>
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
        string path = PathOf(raw, opening.StateFolder);
        isBelieved = header.IsDirty && Exists(path, raw.Path);
        if (isBelieved && opening.IsReadOnly)
            throw new TargetException($"{raw.Path} was left by a killed daemon, which had changes of it that are not "
                + "in the file yet: bring them there with 'ublkback image check --repair', or attach it to be written");
        if (opening.IsReadOnly || (!isBelieved && !opening.OutlivesProcess)) return MetadataLog.InMemory();
        Directory.CreateDirectory(
            opening.StateFolder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        return MetadataLog.Open(path, isBelieved);
    }

    /// <summary>Whether a killed process left changes of an image that are not in its file. Blocks.</summary>
    /// <exception cref="TargetException">That cannot be seen.</exception>
    public static bool HasChanges(RawFile raw, Qcow2Header header, ImageOpening opening) =>
        opening.StateFolder is not null && header.IsDirty && Exists(PathOf(raw, opening.StateFolder), raw.Path);

    private static string PathOf(RawFile raw, string folder) =>
        Path.Combine(
            folder,
            string.Create(CultureInfo.InvariantCulture, $"{raw.Status.Device:x}-{raw.Status.Inode:x}.qcow2-log"));

    private static bool Exists(string path, string image)
    {
        try
        {
            FileDescriptor.OpenPath(path).Dispose();
            return true;
        }
        catch (LinuxException failure) when (failure.Errno == LinuxError.NoEntry)
        {
            return false;
        }
        catch (LinuxException failure)
        {
            throw new TargetException(
                $"{image} was not closed, and whether a killed daemon left changes of it in "
                    + $"{path} cannot be seen ({LinuxError.Describe(failure.Errno)})",
                "run this as root", failure);
        }
    }
}
