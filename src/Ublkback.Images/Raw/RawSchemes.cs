using Ublkback.Block;
using Ublkback.Linux.Kernel;

namespace Ublkback.Images.Raw;

/// <summary>The schemes of images that have no format.</summary>
public static class RawSchemes
{
    /// <summary>Files and block devices, as they are.</summary>
    public static ImageScheme Raw { get; } = new(BlockTarget.RawScheme, RawImageOpener.Open)
    {
        Example = "/path",
        Create = Create,
        HasMap = true,
        FindDevice = FindDevice,
    };

    /// <summary>Images in the daemon's memory.</summary>
    public static ImageScheme Memory { get; } = new("memory", ScratchImageOpener.OpenMemory)
    {
        Example = "memory:SIZE",
        HasMap = true,
    };

    /// <summary>Images that read as zeros and keep nothing.</summary>
    public static ImageScheme Null { get; } = new("null", ScratchImageOpener.OpenNull) { Example = "null:SIZE" };

    private static void Create(BlockTarget target, NewImage image)
    {
        string path = NewFile.PathOf(target);
        if (image.Size <= 0 || image.Size % BlockRequest.SectorSize != 0)
            throw new TargetException(
                $"a disk cannot have {image.Size} bytes", $"give a multiple of {BlockRequest.SectorSize}");
        try
        {
            using FileStream file = new(path, FileMode.CreateNew);
            file.SetLength(image.Size);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw new TargetException($"{path} cannot be made: {failure.Message}", failure);
        }
    }

    private static string? FindDevice(BlockTarget target)
    {
        using FileDescriptor place = FileDescriptor.OpenPath(target.Location);
        return FileStatus.Of(place).Kind == FileKind.BlockDevice ? target.Location : null;
    }
}
