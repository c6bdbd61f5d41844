using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Raw;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Qcow2;

/// <summary>
/// Finds the backing files of images, and refuses those that the target of the image does not allow: whoever made the
/// image would otherwise choose which file of this host is read, or written by a commit. Blocks.
/// </summary>
internal sealed class BackingFiles(BlockCatalog catalog)
{
    private const string Option = Qcow2Opener.BackingOption;

    /// <summary>Finds the backing file that an image names.</summary>
    /// <param name="target">The image.</param>
    /// <param name="name">The name of the backing file in it.</param>
    /// <param name="format">The format that the image says it has; null if it says none.</param>
    /// <param name="overlays">The paths of the images of the chain, down to this one.</param>
    /// <returns>Its target, which allows the same of what lies below it.</returns>
    /// <exception cref="TargetException">It is not understood, not allowed, or one of the overlays.</exception>
    public BlockTarget Find(BlockTarget target, string name, string? format, IReadOnlyList<string> overlays)
    {
        string image = target.Location;
        BlockTarget backing = TargetOf(image, name, format);
        string allowed = target.Options.GetValueOrDefault(Option, "no");
        // A folder allows files only: what a server is called may look like a path in it.
        bool isFile = backing.Scheme is Qcow2Opener.Scheme or BlockTarget.RawScheme;
        bool isAllowed = allowed == "allow"
            || (isFile && allowed.StartsWith('/') && IsBelow(allowed, backing.Location, image));
        if (!isAllowed)
        {
            throw allowed is "no" or Qcow2Opener.NoBacking
                ? new TargetException(
                    $"{image} names {name} as its backing file",
                    $"add ?{Option}=allow to the target if it may name files of this host")
                : new TargetException(
                    $"{image} names {name} as its backing file, which {Option}={allowed} does not allow",
                    $"give the folder that it is in, or {Option}=allow");
        }

        if (isFile) RefuseLoop(backing.Location, image, overlays);
        return backing.Scheme == Qcow2Opener.Scheme ? backing.WithDefault(Option, allowed) : backing;
    }

    private BlockTarget TargetOf(string image, string name, string? format)
    {
        BackingName parsed = BackingName.Parse(image, name, format);
        if (parsed.Path is string path)
            return new BlockTarget(
                [], parsed.Format == "raw" ? BlockTarget.RawScheme : Qcow2Opener.Scheme, path,
                new Dictionary<string, string>());
        bool isKnown = parsed.Format == "raw" && catalog.Images.ContainsKey(parsed.Protocol)
            && parsed.Protocol is not (BlockTarget.RawScheme or Qcow2Opener.Scheme);
        return isKnown
            ? BlockTarget.Parse(name)
            : throw new TargetException(
                $"cannot open {name}, the backing file of {image}",
                "if it is a file with a colon in its name, put ./ before it");
    }

    // Compares real paths: a parent folder may be a symbolic link.
    private static bool IsBelow(string folder, string path, string image)
    {
        string? real = RealPath.Of(path)
            ?? throw new TargetException(
                $"the backing file of {image}: {path} does not exist", "correct its name with 'qemu-img rebase -u'");
        return RealPath.Of(folder) is string realFolder
            && real.StartsWith(realFolder.TrimEnd('/') + '/', StringComparison.Ordinal);
    }

    private static void RefuseLoop(string path, string image, IReadOnlyList<string> overlays)
    {
        if (StatusOf(path) is not FileStatus status) return; // opening it says what is wrong
        foreach (string overlay in overlays)
        {
            if (StatusOf(overlay) is FileStatus other && IsSame(status, other))
                throw new TargetException(
                    $"{overlay} is its own backing file, which {image} calls {path} (the chain is "
                        + $"{string.Join(", ", overlays)})",
                    "correct the chain with 'qemu-img rebase -u'");
        }
    }

    private static bool IsSame(FileStatus one, FileStatus other) =>
        one.Kind == FileKind.BlockDevice && other.Kind == FileKind.BlockDevice
            ? one.RawDevice == other.RawDevice
            : (one.Device, one.Inode) == (other.Device, other.Inode);

    private static FileStatus? StatusOf(string path)
    {
        try
        {
            using FileDescriptor place = FileDescriptor.OpenPath(path);
            return FileStatus.Of(place);
        }
        catch (LinuxException)
        {
            return null;
        }
    }
}
