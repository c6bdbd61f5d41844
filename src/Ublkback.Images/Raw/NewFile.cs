using Ublkback.Block;

namespace Ublkback.Images.Raw;

/// <summary>Checks the target of an image that will be a new file.</summary>
internal static class NewFile
{
    /// <summary>Returns the path, as the kernel resolves it.</summary>
    /// <exception cref="TargetException">
    /// The target has hooks or options, the path is relative, or there is a file already.
    /// </exception>
    public static string PathOf(BlockTarget target)
    {
        string path = target.Location;
        if (target.Hooks.Count > 0 || target.Options.Count > 0)
            throw new TargetException("the target of a new image is a scheme and a path alone");
        if (!path.StartsWith('/')) throw new TargetException($"{path} is not an absolute path", "begin it with /");
        string real = RealPath.OfNew(path);
        if (Path.Exists(real)) throw new TargetException($"{path} exists", "remove it first, or choose another name");
        return real;
    }
}
