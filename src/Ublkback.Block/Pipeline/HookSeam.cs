namespace Ublkback.Block;

/// <summary>
/// The seam between a hook and what lies below it, or between the disk's rings and the topmost. It lets only valid
/// requests pass, each once at a time, gives them back as they came, and turns an exception into a failed request; who
/// broke a rule is named in the log.
/// </summary>
[DataPath]
public sealed class HookSeam : ISeam
{
    private readonly int _depth; // from 1, at the top
    private readonly string? _above; // the hook that uses this seam; null at the top
    private readonly string _below;
    private readonly BlockHook? _hook; // what lies below is a hook with a seam of its own, or the image
    private readonly HookSeam? _next;
    private readonly IBlockImage _image;
    private readonly Action<string> _warn;
    private volatile ImageGeometry _geometry;

    internal HookSeam(
        int depth, string? above, string below, BlockHook? hook, HookSeam? next, IBlockImage image, Action<string> warn)
    {
        _depth = depth;
        _above = above;
        _below = below;
        _hook = hook;
        _next = next;
        _image = image;
        _warn = warn;
        _geometry = Measure();
    }

    /// <summary>Size, sector sizes and access of what lies below. Any thread.</summary>
    public ImageGeometry Geometry => _geometry;

    /// <summary>Has what lies below handle a request, and ends when it has. On the disk's loop.</summary>
    public ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        if (_above is null)
        {
            SeamAssert.IsValid(request, _geometry, "the pipeline's top");
            SeamAssert.IsOnce(request.Depth == 0, "the pipeline's top");
        }
        else if (FindFault(request) is string fault)
        {
            _warn($"{_above} passed on {fault}");
            return new ValueTask<BlockStatus>(BlockStatus.IoError);
        }

        SeamCall call = request.CallAt(_depth);
        call.Enter(this, _depth);
        BlockStatus status;
        try
        {
            ValueTask<BlockStatus> below = _hook is null
                ? _image.HandleAsync(request)
                : _hook.HandleAsync(request, _next!);
            if (!below.IsCompleted) return call.LeaveAfter(below);
            status = below.GetAwaiter().GetResult(); // completed: tested above
        }
        catch (Exception failure)
        {
            SeamAssert.IsNoFault(failure); // a filter of the catch would cost 16 ns each time
            status = Blame(failure);
        }

        return call.Leave(status);
    }

    BlockStatus ISeam.Blame(Exception failure) => Blame(failure);

    void ISeam.BlameEarlyAnswer() => _warn($"{_below} answered a request that it passed on before that came back");

    /// <summary>Looks at the geometry below once more; a hook that cannot work on it keeps that of before.</summary>
    internal void Remeasure()
    {
        _next?.Remeasure();
        try
        {
            _geometry = Measure();
        }
        catch (TargetException refusal)
        {
            _warn($"{_below} does not take the new size: {refusal.Message}");
        }
    }

    private BlockStatus Blame(Exception failure)
    {
        _warn($"{_below} failed: {failure.GetType().Name}: {failure.Message}");
        return BlockStatus.IoError;
    }

    private ImageGeometry Measure()
    {
        if (_hook is null) return _image.Geometry;
        try
        {
            return _hook.Measure(_next!.Geometry);
        }
        catch (Exception failure) when (failure is not TargetException)
        {
            throw new TargetException($"{_below} failed: {failure.GetType().Name}: {failure.Message}", failure);
        }
    }

    // What comes from a ring was checked there.
    private string? FindFault(BlockRequest request)
    {
        if (request.Depth >= _depth) return "a request that is below it already";
        // off the path: a hook is at fault
        return SeamRule.FindFault(request, _geometry) is string fault ? $"a bad request: {fault}" : null;
    }
}
