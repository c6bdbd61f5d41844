using Ublkback.Block;
using Ublkback.Hooks.Crypt;
using Ublkback.Hooks.Faults;
using Ublkback.Hooks.Throttle;
using Ublkback.Hooks.Trace;

namespace Ublkback.Hooks;

/// <summary>The hooks that come with ublkback.</summary>
public static class StandardHooks
{
    /// <summary>Makes them known.</summary>
    public static BlockCatalog AddStandardHooks(this BlockCatalog catalog)
    {
        ArgumentNullException.ThrowIfNull(catalog);
        return catalog
            .AddHook("crypt", (target, opening) => new CryptHook(target, opening))
            .AddHook("delay", (target, opening) => new DelayHook(target, opening))
            .AddHook("fault", (target, opening) => new FaultHook(target, opening))
            .AddHook("throttle", (target, opening) => new ThrottleHook(target, opening))
            .AddHook("trace", (target, opening) => new TraceHook(target, opening))
            .AddHook("watch", (target, opening) => new WatchHook(target, opening));
    }
}
