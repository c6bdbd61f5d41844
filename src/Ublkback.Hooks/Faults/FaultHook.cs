using Ublkback.Block;

namespace Ublkback.Hooks.Faults;

/// <summary>
/// <c>fault(error=io|nospace|unsupported,op=…,sectors=…,every=N,probability=P,seed=S)</c>: fails requests, which then
/// never reach what lies below: all that match, every n-th of them, or each with a probability.
/// </summary>
internal sealed class FaultHook : BlockHook
{
    private readonly RequestFilter _filter;
    private readonly BlockStatus _status;
    private readonly long _every;
    private readonly double _probability;
    private readonly Random _random;
    private long _matched;

    /// <summary>Makes the hook of one disk.</summary>
    /// <exception cref="TargetException">The arguments are not right.</exception>
    public FaultHook(HookTarget target, ImageOpening opening)
    {
        target.AllowOnly("error", "op", "sectors", "every", "probability", "seed");
        _filter = new RequestFilter(target);
        _status = target.GetChoice("error", "io", "nospace", "unsupported") switch
        {
            "nospace" => BlockStatus.NoSpace,
            "unsupported" => BlockStatus.Unsupported,
            _ => BlockStatus.IoError,
        };
        _every = target.GetNumber("every") ?? 1;
        if (_every == 0) throw new TargetException("every=0 is no period", "use every=1 for all requests");
        _probability = target.GetFraction("probability") ?? 1;
        _random = SeededRandom.Of(target);
    }

    /// <inheritdoc/>
    public override ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next) =>
        _filter.Matches(request) && ++_matched % _every == 0 && _random.NextDouble() < _probability
            ? new ValueTask<BlockStatus>(_status)
            : next.HandleAsync(request);
}
