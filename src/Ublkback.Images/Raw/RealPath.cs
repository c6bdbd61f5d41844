using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Raw;

/// <summary>
/// Asks the kernel where a path leads. The class library resolves '..' in the text of a path, which is another place if
/// the folder before it is a symbolic link; so a path goes through here before it goes to the class library.
/// </summary>
internal static class RealPath
{
    /// <summary>Returns the path without symbolic links and '..'; null if there is nothing at it.</summary>
    public static string? Of(string path)
    {
        try
        {
            using FileDescriptor place = FileDescriptor.OpenPath(path);
            return new FileInfo(place.DevicePath).LinkTarget;
        }
        catch (LinuxException)
        {
            return null;
        }
    }

    /// <summary>Returns the same for a file that may not exist yet; without its folder, the path itself.</summary>
    public static string OfNew(string path)
    {
        int slash = path.LastIndexOf('/');
        string? folder = slash > 0 ? Of(path[..slash]) : null;
        return folder is null ? path : folder.TrimEnd('/') + path[slash..];
    }
}
