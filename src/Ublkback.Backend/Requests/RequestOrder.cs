using System.Diagnostics;
using Ublkback.Blkif;

namespace Ublkback.Backend.Requests;

/// <summary>
/// Which requests of a ring may be below the image at the same time. Reads and writes run side by side. A barrier runs
/// alone. A discard and a write that overlap run one after the other, in the order in which they came. On the ring's
/// worker.
/// </summary>
[DataPath]
internal sealed class RequestOrder
{
    private readonly List<RingRequest> _running;
    private int _discards;
    private bool _hasBarrier;

    public RequestOrder(int slotCount) => _running = new List<RingRequest>(slotCount);

    /// <summary>Requests below the image.</summary>
    public int Count => _running.Count;

    /// <summary>Whether a request may start now, given that all that came before it have.</summary>
    public bool MayStart(RingRequest request)
    {
        if (_hasBarrier) return false;
        return request.Wire.InnerOperation switch
        {
            BlkifOperation.Read => true,
            BlkifOperation.WriteBarrier => _running.Count == 0,
            BlkifOperation.Discard => !Overlaps(request, discards: false),
            _ => _discards == 0 || !Overlaps(request, discards: true),
        };
    }

    /// <summary>A request starts.</summary>
    public void Add(RingRequest request)
    {
        request.RunningIndex = _running.Count;
        _running.Add(request);
        if (request.Wire.Operation == BlkifOperation.Discard) _discards++;
        if (request.Wire.Operation == BlkifOperation.WriteBarrier) _hasBarrier = true;
    }

    /// <summary>A request has ended.</summary>
    public void Remove(RingRequest request)
    {
        Debug.Assert(
            request.RunningIndex < _running.Count && _running[request.RunningIndex] == request,
            "the image completed a request that is not below it: twice, perhaps");
        RingRequest last = _running[^1];
        _running[request.RunningIndex] = last;
        last.RunningIndex = request.RunningIndex;
        _running.RemoveAt(_running.Count - 1);
        if (request.Wire.Operation == BlkifOperation.Discard) _discards--;
        if (request.Wire.Operation == BlkifOperation.WriteBarrier) _hasBarrier = false;
    }

    private bool Overlaps(RingRequest request, bool discards)
    {
        ulong end = request.First + (ulong)request.Length;
        foreach (RingRequest other in _running)
        {
            BlkifOperation operation = other.Wire.InnerOperation;
            if (operation == BlkifOperation.Read || operation == BlkifOperation.Discard != discards) continue;
            if (other.First < end && request.First < other.First + (ulong)other.Length) return true;
        }

        return false;
    }
}
