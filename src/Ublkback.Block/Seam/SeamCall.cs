using System.Runtime.CompilerServices;
using System.Threading.Tasks.Sources;

namespace Ublkback.Block;

/// <summary>
/// A request's stay below one seam. The request keeps it for the next time, so a request that is recycled allocates
/// nothing, and passing a seam costs less than an async method would.
/// </summary>
[DataPath]
internal sealed class SeamCall : IValueTaskSource<BlockStatus>
{
    private readonly BlockRequest _request;
    private readonly Action _onEnded;
    private ManualResetValueTaskSourceCore<BlockStatus> _core;
    private ValueTaskAwaiter<BlockStatus> _awaiter;
    private ISeam? _seam;
    private int _ownDepth;
    private bool _isBelow; // what is below has the request, and answers later
    private bool _isAnsweredEarly; // by what is below, while the request is deeper still
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
    public void Enter(ISeam seam, int depth)
    {
        _seam = seam;
        _ownDepth = depth;
        _depth = _request.Depth;
        _operation = _request.Operation;
        _sector = _request.Sector;
        _sectorCount = _request.SectorCount;
        _data = _request.Data;
        _request.Depth = depth;
    }

    /// <summary>
    /// What is below has answered: gives the request back as it came. When that has passed the request on and not got
    /// it back, the data may still be read or written, so the answer waits for it, and is an error.
    /// </summary>
    public ValueTask<BlockStatus> Leave(BlockStatus status)
    {
        if (_request.Depth == _ownDepth)
        {
            GiveBack();
            return new ValueTask<BlockStatus>(status);
        }

        _core.Reset();
        AnswerLater();
        return new ValueTask<BlockStatus>(this, _core.Version);
    }

    /// <summary>Ends when what is below has, and leaves the seam.</summary>
    public ValueTask<BlockStatus> LeaveAfter(in ValueTask<BlockStatus> below)
    {
        _isBelow = true;
        _awaiter = below.GetAwaiter();
        _core.Reset();
        ValueTask<BlockStatus> result = new(this, _core.Version);
        _awaiter.UnsafeOnCompleted(_onEnded);
        return result;
    }

    public BlockStatus GetResult(short token) => _core.GetResult(token);

    public ValueTaskSourceStatus GetStatus(short token) => _core.GetStatus(token);

    public void OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _core.OnCompleted(continuation, state, token, ValueTaskSourceOnCompletedFlags.None);

    private void OnEnded()
    {
        SeamAssert.IsOnce(_isBelow, "a seam of the pipeline");
        _isBelow = false;
        BlockStatus status;
        try
        {
            status = _awaiter.GetResult(); // completed: the awaiter called
        }
        catch (Exception failure)
        {
            SeamAssert.IsNoFault(failure);
            status = _seam!.Blame(failure);
        }

        if (_request.Depth != _ownDepth)
        {
            AnswerLater();
            return;
        }

        GiveBack();
        _core.SetResult(status);
    }

    private void AnswerLater()
    {
        _isAnsweredEarly = true;
        _seam!.BlameEarlyAnswer();
    }

    private void GiveBack()
    {
        _request.Depth = _depth;
        _request.Operation = _operation;
        _request.Sector = _sector;
        _request.SectorCount = _sectorCount;
        _request.Data = _data;
        if (_depth > 0) _request.CallAt(_depth).OnBack();
    }

    // The request has come back to what is below.
    private void OnBack()
    {
        if (!_isAnsweredEarly) return;
        _isAnsweredEarly = false;
        GiveBack();
        _core.SetResult(BlockStatus.IoError);
    }
}
