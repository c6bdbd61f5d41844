using Ublkback.Block;

namespace Sample;

/// <summary>Tells the daemon what this assembly has: it needs one public class like this.</summary>
public sealed class SamplePlugin : IBlockPlugin
{
    /// <inheritdoc/>
    public void Register(BlockCatalog catalog) => catalog
        .AddHook("rot13", (target, _) => new Rot13Hook(target))
        .AddImage("stripes", (target, _) => new StripesImage(target));
}
