using Ublkback.Block;

namespace Ublkback.Hooks.Faults;

/// <summary>Chance that repeats itself: <c>seed=S</c>, 0 when left out.</summary>
internal static class SeededRandom
{
    /// <summary>The random numbers of a hook's seed.</summary>
    /// <exception cref="TargetException">The seed is not a whole number.</exception>
    public static Random Of(HookTarget target) => new((int)((target.GetNumber("seed") ?? 0) & int.MaxValue));
}
