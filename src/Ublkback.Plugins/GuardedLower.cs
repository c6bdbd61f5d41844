using System.Diagnostics;
using System.Runtime.CompilerServices;
using Ublkback.Block;

namespace Ublkback.Plugins;

/// <summary>
/// What a plugin's hook takes for the image below it. Passes requests on to what really lies there: on the loop,
/// whatever thread they come from, and only while the disk is open.
/// </summary>
internal sealed class GuardedLower(ImageGeometry geometry) : IBlockImage, IMeasuredImage
{
    private readonly Stack<BlockRequest> _carriers = new();
    private readonly TaskCompletionSource _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private volatile ImageGeometry _geometry = geometry;
    private volatile BlockLoop? _loop;
    private HookSeam _next = null!;
    private int _underWay;
    private long _progressAt;
    private bool _isClosed;

    public ImageGeometry Geometry => _geometry;

    public string Identity => "";

    /// <summary>The geometry that <see cref="Remeasure"/> will find.</summary>
    public ImageGeometry Below { get; set; } = geometry;

    /// <summary>Where requests go. On the loop, before the first.</summary>
    public void Connect(HookSeam next)
    {
        if (_loop is not null) return;
        _next = next;
        _loop = BlockLoop.Current;
    }

    /// <summary>Whether what lies below has ended nothing for so long, though it has something to do.</summary>
    public bool IsStalled(TimeSpan patience) => _underWay > 0 && Stopwatch.GetElapsedTime(_progressAt) > patience;

    public ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        // before the first request
        if (_loop is not BlockLoop loop) return new ValueTask<BlockStatus>(BlockStatus.IoError);
        if (loop.IsCurrent) return PassAsync(request);
        TaskCompletionSource<BlockStatus> done = new();
        loop.Post(async () => done.SetResult(await PassAsync(request)));
        return new ValueTask<BlockStatus>(done.Task);
    }

    public bool Remeasure()
    {
        if (_geometry == Below) return false;
        _geometry = Below;
        return true;
    }

    /// <summary>Lets nothing more pass, and ends when all that has passed is back.</summary>
    public ValueTask DisposeAsync()
    {
        if (_loop is not BlockLoop loop) return default;
        loop.Post(() =>
        {
            _isClosed = true;
            if (_underWay == 0) _closed.TrySetResult();
        });
        return new ValueTask(_closed.Task);
    }

    // A seam knows requests by how deep they are, so what comes out of a pipeline into another goes on in another
    // request.
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> PassAsync(BlockRequest request)
    {
        if (_isClosed) return BlockStatus.IoError;
        if (_underWay++ == 0) _progressAt = Stopwatch.GetTimestamp();
        BlockRequest carrier = _carriers.TryPop(out BlockRequest? free) ? free : new BlockRequest();
        carrier.Operation = request.Operation;
        carrier.Sector = request.Sector;
        carrier.SectorCount = request.SectorCount;
        carrier.Data = request.Data;
        BlockStatus status = await _next.HandleAsync(carrier);
        _carriers.Push(carrier);
        _progressAt = Stopwatch.GetTimestamp();
        if (--_underWay == 0 && _isClosed) _closed.TrySetResult();
        return status;
    }
}
