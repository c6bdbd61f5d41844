using System.Runtime.CompilerServices;
using System.Threading.Tasks.Sources;

namespace Ublkback.Block;

/// <summary>
/// A request's stay below one seam. The request keeps it for the next time, so a request that is recycled allocates nothing,
/// and passing a seam costs less than an async method would.
/// </summary>
internal sealed class SeamCall : IValueTaskSource<BlockStatus>
{
    private readonly BlockRequest _request;
    private readonly Action _onEnded;
    private ManualResetValueTaskSourceCore<BlockStatus> _core;
    private ValueTaskAwaiter<BlockStatus> _awaiter;
    private BlockNext? _seam;
    private int _depth;
    private BlockOperation _operation;
    private ulong _sector;
    private long _sectorCount;
    private Memory<byte> _data;

    public SeamCall(BlockRequest request)
    {
        _request = request;
        _onEnded = OnEnded;
    }

    /// <summary>Remembers how the request came to a seam of a depth.</summary>
    public void Enter(BlockNext seam, int depth)
    {
        _seam = seam;
        _depth = _request.Depth;
        _operation = _request.Operation;
        _sector = _request.Sector;
        _sectorCount = _request.SectorCount;
        _data = _request.Data;
        _request.Depth = depth;
    }

    /// <summary>Gives the request back as it came.</summary>
    public void Leave()
    {
        _request.Depth = _depth;
        _request.Operation = _operation;
        _request.Sector = _sector;
        _request.SectorCount = _sectorCount;
        _request.Data = _data;
    }

    /// <summary>Ends when what is below has, and leaves the seam.</summary>
    public ValueTask<BlockStatus> LeaveAfter(in ValueTask<BlockStatus> below)
    {
        _awaiter = below.GetAwaiter();
        _core.Reset();
        ValueTask<BlockStatus> result = new(this, _core.Version);
        _awaiter.UnsafeOnCompleted(_onEnded);
        return result;
    }

    public BlockStatus GetResult(short token) => _core.GetResult(token);

    public ValueTaskSourceStatus GetStatus(short token) => _core.GetStatus(token);

    public void OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _core.OnCompleted(continuation, state, token, ValueTaskSourceOnCompletedFlags.None);

    private void OnEnded()
    {
        BlockStatus status;
        try
        {
            status = _awaiter.GetResult();
        }
        catch (Exception failure)
        {
            status = _seam!.Blame(failure);
        }

        Leave();
        _core.SetResult(status);
    }
}
