using Ublkback.Blkif;

namespace Ublkback.Backend.Requests;

/// <summary>
/// Requests that were in flight when an earlier daemon ended, in the order of the ring, until they are taken again. A
/// request that was in flight at two crashes may be the cause. It is served while no other request of its ring is in
/// flight; if we crash then, our successor knows the cause. On the ring's worker.
/// </summary>
internal sealed class RecoveredRequests
{
    /// <summary>Attempts after which a request is served while no other is in flight.</summary>
    public const int MaxAttemptsInCompany = 2;

    /// <summary>
    /// Attempts after which a request is answered with an error and never retried. Kills that have nothing to do with
    /// a request hardly ever hit the same one as often.
    /// </summary>
    public const int MaxAttempts = 5;

    private readonly BackRing _ring;
    private readonly Queue<int> _entries;
    private bool _isAlone;
    private int _unanswered;

    public RecoveredRequests(BackRing ring)
    {
        _ring = ring;
        _entries = new Queue<int>(ring.FindPending());
        _unanswered = _entries.Count;
    }

    /// <summary>Number of requests that were not taken yet.</summary>
    public int Count => _entries.Count;

    /// <summary>True if the request of an entry was not taken yet.</summary>
    public bool Holds(int entry) => _entries.Contains(entry);

    /// <summary>Takes the next request that may be served beside those in flight.</summary>
    public bool TryNext(int inFlight, out int entry)
    {
        if (!_entries.TryPeek(out entry)) return false;
        bool mustBeAlone = _ring.Attempts(entry) >= MaxAttemptsInCompany;
        if (inFlight > 0 && (mustBeAlone || _isAlone)) return false;
        _isAlone = mustBeAlone;
        _ = _entries.Dequeue();
        return true;
    }

    /// <summary>Counts an answer; true if it was the last one.</summary>
    public bool CountAnswer() => --_unanswered == 0;
}
