using Ublkback.Block;

namespace Ublkback.ImageTools;

/// <summary>Finds what a command can do with the image of a target, and refuses what its scheme cannot.</summary>
internal static class SchemeTool
{
    /// <summary>Returns the target, without hooks, and what its scheme can do.</summary>
    /// <param name="catalog">All schemes.</param>
    /// <param name="text">The target.</param>
    /// <param name="can">Returns what the command needs of a scheme; null if the scheme does not have it.</param>
    /// <param name="what">What cannot be done, such as "checked".</param>
    /// <exception cref="TargetException">The target has hooks, or its scheme cannot do it.</exception>
    public static (BlockTarget Target, T Can) Require<T>(
        BlockCatalog catalog, string text, Func<ImageScheme, T?> can, string what)
        where T : class
    {
        BlockTarget target = BlockTarget.Parse(text);
        if (target.Hooks.Count == 0 && can(catalog.Find(target)) is T found) return (target, found);
        throw new TargetException(
            $"{text} cannot be {what}", $"give {catalog.Examples(scheme => can(scheme) is not null)}, without hooks");
    }

    /// <summary>Creates an empty image.</summary>
    /// <exception cref="TargetException">It cannot be created, or is there already; nothing has changed.</exception>
    public static void Create(BlockCatalog catalog, BlockTarget target, NewImage image)
    {
        Action<BlockTarget, NewImage> create = catalog.Find(target).Create
            ?? throw new TargetException(
                $"an image {target.Scheme}: cannot be made",
                $"give {catalog.Examples(scheme => scheme.Create is not null)} (what is there is written by 'image "
                    + "convert --compare')");
        create(target, image);
    }
}
