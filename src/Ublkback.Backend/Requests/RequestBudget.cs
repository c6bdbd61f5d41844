using Ublkback.Block;

namespace Ublkback.Backend.Requests;

/// <summary>
/// How many requests the rings of a domain may hold: the daemon keeps a record for each slot of a ring, and the guest
/// chooses how many slots and queues its disks have. Any thread.
/// </summary>
public sealed class RequestBudget
{
    /// <summary>Most requests of a domain: 256 of the largest rings, or 4096 of one page.</summary>
    public const int MaxRequests = 1 << 17;

    private readonly Lock _lock = new();
    private readonly Dictionary<ushort, int> _byDomain = [];

    /// <summary>Takes room for the rings of a disk, until the result is disposed.</summary>
    /// <exception cref="TargetException">The domain's rings would hold too many.</exception>
    public IDisposable Take(ushort domid, int requests)
    {
        lock (_lock)
        {
            int own = _byDomain.GetValueOrDefault(domid);
            if (own + requests > MaxRequests)
                throw new TargetException(
                    $"the disk's rings hold {requests} requests, and those of the guest's other disks {own}: "
                        + $"{MaxRequests} are the most for a guest",
                    "give it fewer disks, or its blkfront smaller rings or fewer queues");
            _byDomain[domid] = own + requests;
        }

        return new Share(this, domid, requests);
    }

    /// <summary>Requests of all domains that are taken now.</summary>
    public int Taken
    {
        get
        {
            lock (_lock) return _byDomain.Values.Sum();
        }
    }

    private void Return(ushort domid, int requests)
    {
        lock (_lock)
        {
            if ((_byDomain[domid] -= requests) == 0) _byDomain.Remove(domid);
        }
    }

    private sealed class Share(RequestBudget budget, ushort domid, int requests) : IDisposable
    {
        private RequestBudget? _budget = budget;

        public void Dispose() => Interlocked.Exchange(ref _budget, null)?.Return(domid, requests);
    }
}
