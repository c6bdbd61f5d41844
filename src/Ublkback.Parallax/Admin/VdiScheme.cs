using Ublkback.Block;

namespace Ublkback.Parallax.Admin;

/// <summary>The scheme of VDIs.</summary>
public static class VdiScheme
{
    /// <summary>The scheme for a catalog.</summary>
    public static ImageScheme Vdi { get; } = new(VdiOpener.Scheme, VdiOpener.Open)
    {
        Example = $"{VdiOpener.Scheme}:NAME",
        Create = (target, image) => VdiOpener.Create(target, image.Size, image.IsUnfinished),
    };
}
