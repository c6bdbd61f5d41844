namespace Ublkback.Block;

/// <summary>
/// Makes a hook of a disk that is being opened. Runs on a helper thread and may block.
/// </summary>
/// <exception cref="TargetException">The arguments are not right, or the disk is not; the message says why.</exception>
public delegate BlockHook HookOpener(HookTarget target, ImageOpening opening);

/// <summary>
/// Knows which names in targets mean which images and hooks. Filled once at start, read by any thread.
/// </summary>
public sealed class BlockCatalog
{
    private readonly SortedDictionary<string, ImageScheme> _images = new(StringComparer.Ordinal);
    private readonly SortedDictionary<string, HookOpener> _hooks = new(StringComparer.Ordinal);

    private readonly List<string> _refusals = [];

    /// <summary>The schemes of images.</summary>
    public IReadOnlyDictionary<string, ImageScheme> Images => _images;

    /// <summary>The kinds of hooks.</summary>
    public IReadOnlyDictionary<string, HookOpener> Hooks => _hooks;

    /// <summary>Adds a scheme of images.</summary>
    /// <exception cref="ArgumentException">The scheme is known already.</exception>
    public BlockCatalog AddImage(string scheme, ImageOpener opener) => AddImage(new ImageScheme(scheme, opener));

    /// <summary>Adds a scheme of images, with what tools can do with its images.</summary>
    /// <exception cref="ArgumentException">The scheme is known already.</exception>
    public BlockCatalog AddImage(ImageScheme scheme)
    {
        ArgumentNullException.ThrowIfNull(scheme);
        _images.Add(scheme.Name, scheme);
        return this;
    }

    /// <summary>Adds a kind of hooks.</summary>
    /// <exception cref="ArgumentException">The name is known already.</exception>
    public BlockCatalog AddHook(string name, HookOpener opener)
    {
        _hooks.Add(name, opener);
        return this;
    }

    /// <summary>Adds why names may be missing, for those who look for one.</summary>
    public void AddRefusal(string reason) => _refusals.Add(reason);

    /// <summary>Returns the scheme of a target's image.</summary>
    /// <exception cref="TargetException">The scheme is unknown.</exception>
    public ImageScheme Find(BlockTarget target)
    {
        ArgumentNullException.ThrowIfNull(target);
        return _images.TryGetValue(target.Scheme, out ImageScheme? scheme)
            ? scheme
            : throw new TargetException($"unknown scheme {target.Scheme} in the target of {target.Location}: this "
                + $"version knows {Names(_images.Keys)}{Refusals}");
    }

    /// <summary>How targets are written whose schemes can do something, such as "/path or qcow2:/path".</summary>
    public string Examples(Func<ImageScheme, bool> can) =>
        string.Join(" or ", _images.Values.Where(can).Select(scheme => scheme.Example).DefaultIfEmpty("none"));

    /// <summary>Opens what a target names. Blocks while it does.</summary>
    /// <exception cref="TargetException">The target is unknown, or cannot be opened.</exception>
    public IBlockImage Open(BlockTarget target, ImageOpening opening)
    {
        ArgumentNullException.ThrowIfNull(target);
        ArgumentNullException.ThrowIfNull(opening);
        ImageScheme scheme = Find(target);
        foreach (HookTarget hook in target.Hooks)
        {
            if (!_hooks.ContainsKey(hook.Name))
                throw new TargetException($"unknown hook {hook.Name} in the target of {target.Location}: this "
                    + $"version knows {Names(_hooks.Keys)}{Refusals}");
        }

        IBlockImage image = scheme.Open(target, opening);
        return target.Hooks.Count == 0 ? image : PutHooksOver(image, target, opening);
    }

    private string Refusals => string.Concat(_refusals.Select(reason => $"; {reason}"));

    private BlockPipeline PutHooksOver(IBlockImage image, BlockTarget target, ImageOpening opening)
    {
        List<(string, BlockHook)> hooks = [];
        try
        {
            foreach (HookTarget hook in target.Hooks)
            {
                try
                {
                    hooks.Add((hook.Name, _hooks[hook.Name](hook, opening)));
                }
                catch (TargetException refusal)
                {
                    throw new TargetException($"hook {hook.Name}: {refusal.Problem}", refusal.Remedy, refusal);
                }
            }

            return new BlockPipeline(hooks, image, opening.Warn);
        }
        catch
        {
            foreach ((_, BlockHook hook) in hooks) hook.DisposeAsync().AsTask().GetAwaiter().GetResult();
            image.DisposeAsync().AsTask().GetAwaiter().GetResult();
            throw;
        }
    }

    private static string Names(IEnumerable<string> names) => string.Join(", ", names.DefaultIfEmpty("none"));
}
