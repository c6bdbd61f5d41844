using Ublkback.Block;
using Ublkback.Images.Qcow2;
using Ublkback.Nbd.Client;
using Ublkback.Parallax.Admin;

namespace Ublkback.ImageTools;

/// <summary>Makes image files.</summary>
internal static class NewImage
{
    /// <summary>Makes an empty image in a new file.</summary>
    /// <exception cref="TargetException">It cannot be made, or is there already; nothing has changed.</exception>
    public static void Create(BlockTarget target, long size, int clusterSize, (string Name, string Format)? backing)
    {
        string path = target.Location;
        if (target.Scheme == VdiOpener.Scheme)
        {
            VdiOpener.Create(target, size);
            return;
        }

        if (target.Hooks.Count > 0 || target.Options.Count > 0)
            throw new TargetException("the target of a new image is a scheme and a path alone");
        if (target.Scheme is not (BlockTarget.RawScheme or Qcow2Opener.Scheme))
            throw new TargetException($"an image {target.Scheme}: cannot be made: give /path, "
                + $"{Qcow2Opener.Scheme}:/path or {VdiOpener.Scheme}:NAME (what is there is written by 'image "
                + "convert --compare')");
        if (!path.StartsWith('/')) throw new TargetException($"{path} is not an absolute path: begin it with /");
        if (Path.Exists(path)) throw new TargetException($"{path} exists: remove it first, or choose another name");
        if (target.Scheme == Qcow2Opener.Scheme)
        {
            Qcow2Tool.Create(path, size, clusterSize, backing);
            return;
        }

        if (size <= 0 || size % BlockRequest.SectorSize != 0)
            throw new TargetException($"a disk cannot have {size} bytes: give a multiple of {BlockRequest.SectorSize}");
        try
        {
            using FileStream file = new(path, FileMode.CreateNew);
            file.SetLength(size);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw new TargetException($"{path} cannot be made: {failure.Message}", failure);
        }
    }

    /// <summary>Reads a size such as 20G.</summary>
    /// <exception cref="TargetException">It is none.</exception>
    public static long ReadSize(string text) =>
        new HookTarget("", new Dictionary<string, string> { ["size"] = text }).GetSize("size")!.Value;

    /// <summary>
    /// A backing image as a qcow2 image names it: QEMU reads files and NBD, and what else there is only we do.
    /// </summary>
    public static (string Name, string Format) NameOf(BlockTarget backing)
    {
        if (backing.Hooks.Count > 0) throw new TargetException("a backing image cannot have hooks");
        return backing.Scheme switch
        {
            BlockTarget.RawScheme => (Path.GetFullPath(backing.Location), "raw"),
            Qcow2Opener.Scheme => (Path.GetFullPath(backing.Location), Qcow2Opener.Scheme),
            _ => (NbdOpener.FindUri(backing) ?? $"{backing.Scheme}:{backing.Location}{OptionsOf(backing)}", "raw"),
        };
    }

    private static string OptionsOf(BlockTarget target) => target.Options.Count == 0
        ? ""
        : "?" + string.Join('&', target.Options.Select(option => $"{option.Key}={option.Value}"));
}
