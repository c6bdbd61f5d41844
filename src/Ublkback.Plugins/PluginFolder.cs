using Ublkback.Block;

namespace Ublkback.Plugins;

/// <summary>The folder from which the daemon takes plugins when it starts.</summary>
public static class PluginFolder
{
    /// <summary>The argument of every plugin's hooks, and option of its images, with the time for a request.</summary>
    public const string TimeoutKey = "timeout";

    private static readonly TimeSpan DefaultTimeout = TimeSpan.FromSeconds(30);

    /// <summary>
    /// Loads what is in a folder, if it is there, and adds it to a catalog. What cannot be a plugin is refused, and
    /// nothing of it added.
    /// </summary>
    public static IReadOnlyList<PluginReport> Load(string folder, BlockCatalog catalog)
    {
        ArgumentNullException.ThrowIfNull(catalog);
        if (!Directory.Exists(folder)) return [];
        try
        {
            PluginFile.CheckAccess(folder);
        }
        catch (TargetException refusal)
        {
            catalog.AddRefusal($"the plugins in {folder} were refused: {refusal.Message}");
            return [new PluginReport(folder, refusal.Message, "")];
        }

        return [.. Directory.EnumerateFiles(folder, "*.dll").Order(StringComparer.Ordinal)
            .Select(path => LoadFile(path, catalog)).OfType<PluginReport>()];
    }

    private static PluginReport? LoadFile(string path, BlockCatalog catalog)
    {
        string file = Path.GetFileName(path);
        try
        {
            if (PluginFile.Load(path) is not IBlockPlugin plugin) return null;
            BlockCatalog own = new();
            plugin.Register(own);
            Add(own, catalog);
            return new PluginReport(
                file, null, string.Join(", ", own.Hooks.Keys.Concat(own.Images.Keys.Select(scheme => $"{scheme}:"))));
        }
        catch (Exception failure)
        {
            string refusal = failure is TargetException
                ? failure.Message
                : $"{failure.GetType().Name}: {failure.Message}";
            catalog.AddRefusal($"the plugin {file} was refused: {refusal}");
            return new PluginReport(file, refusal, "");
        }
    }

    private static void Add(BlockCatalog own, BlockCatalog catalog)
    {
        foreach (string name in own.Hooks.Keys.Where(catalog.Hooks.ContainsKey))
            throw new TargetException($"a hook {name} is known already");
        foreach (string scheme in own.Images.Keys.Where(catalog.Images.ContainsKey))
            throw new TargetException($"a scheme {scheme}: is known already");
        foreach ((string name, HookOpener opener) in own.Hooks) catalog.AddHook(name, Guard(opener));
        foreach (ImageScheme scheme in own.Images.Values)
            catalog.AddImage(scheme with { Open = Guard(scheme.Open) });
    }

    private static HookOpener Guard(HookOpener opener) => (target, opening) =>
    {
        BlockHook hook = PluginCode.Run("it", () => opener(target.Without(TimeoutKey), opening));
        return new GuardedHook(target.Name, hook, target.GetDuration(TimeoutKey) ?? DefaultTimeout, opening.Warn);
    };

    private static ImageOpener Guard(ImageOpener opener) => (target, opening) =>
    {
        string name = $"image {target.Scheme}:";
        TimeSpan timeout = new HookTarget(target.Scheme, target.Options).GetDuration(TimeoutKey) ?? DefaultTimeout;
        IBlockImage image = PluginCode.Run(name, () => opener(target.Without(TimeoutKey), opening));
        try
        {
            return new GuardedImage(name, image, timeout, () => false, opening.Warn);
        }
        catch
        {
            PluginCode.EndAsync(name, image, opening.Warn).AsTask().GetAwaiter().GetResult();
            throw;
        }
    };
}
