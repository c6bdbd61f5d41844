using System.Runtime.CompilerServices;
using Ublkback.Block;

namespace Ublkback.Hooks.Faults;

/// <summary>
/// <c>delay(time=T,distribution=constant|uniform|exponential|normal,deviation=T,op=…,sectors=…,seed=S)</c>: has
/// requests wait before they go on. The time is the mean; uniform is from 0 to twice that.
/// </summary>
internal sealed class DelayHook : BlockHook
{
    private readonly RequestFilter _filter;
    private readonly Func<double> _next;

    /// <summary>Makes the hook of one disk.</summary>
    /// <exception cref="TargetException">The arguments are not right.</exception>
    public DelayHook(HookTarget target, ImageOpening opening)
    {
        target.AllowOnly("time", "distribution", "deviation", "op", "sectors", "seed");
        _filter = new RequestFilter(target);
        double mean = (target.GetDuration("time")
            ?? throw new TargetException("it has no time", "write delay(time=5ms)")).TotalSeconds;
        double deviation = target.GetDuration("deviation")?.TotalSeconds ?? 0;
        Random random = SeededRandom.Of(target);
        _next = target.GetChoice("distribution", "constant", "uniform", "exponential", "normal") switch
        {
            "uniform" => () => random.NextDouble() * 2 * mean,
            "exponential" => () => -Math.Log(1 - random.NextDouble()) * mean,
            "normal" => () => mean + (deviation * Gauss(random)),
            _ => () => mean,
        };
    }

    /// <inheritdoc/>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public override async ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next)
    {
        double seconds = _filter.Matches(request) ? _next() : 0;
        if (seconds > 0) await BlockLoop.Current.DelayAsync(TimeSpan.FromSeconds(seconds));
        return await next.HandleAsync(request);
    }

    // Box and Muller.
    private static double Gauss(Random random) =>
        Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble());
}
