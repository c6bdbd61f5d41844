namespace Ublkback.Block;

/// <summary>Opens the image of one scheme. Runs on a helper thread and may block.</summary>
/// <exception cref="TargetException">The image cannot be opened; the message says why.</exception>
public delegate IBlockImage ImageOpener(BlockTarget target, ImageOpening opening);

/// <summary>Knows which opener serves which scheme. Filled once at start, read by any thread.</summary>
public sealed class ImageSchemes
{
    private readonly SortedDictionary<string, ImageOpener> _openers = new(StringComparer.Ordinal);

    /// <summary>Adds a scheme.</summary>
    public ImageSchemes Add(string scheme, ImageOpener opener)
    {
        _openers.Add(scheme, opener);
        return this;
    }

    /// <summary>Opens what a target names. Blocks while it does.</summary>
    /// <exception cref="TargetException">The target is unknown, or cannot be opened.</exception>
    public IBlockImage Open(BlockTarget target, ImageOpening opening)
    {
        if (target.Hooks is [HookTarget hook, ..])
            throw new TargetException($"unknown hook {hook.Name} in the target of {target.Location}: this version has no hooks");
        if (!_openers.TryGetValue(target.Scheme, out ImageOpener? opener))
            throw new TargetException($"unknown scheme {target.Scheme}: in the target of {target.Location}: this version knows {string.Join(", ", _openers.Keys)}");
        return opener(target, opening);
    }
}
