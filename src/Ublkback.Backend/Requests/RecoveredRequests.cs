using Ublkback.Blkif;

namespace Ublkback.Backend.Requests;

/// <summary>
/// Requests that a process before us had in hand when it died, on their way to be served again, in the order of the
/// ring. One that was in hand at two deaths may be the cause, so it is served with nothing else of its ring in hand;
/// and if we die of it then, our successor knows which it was. On the ring's worker.
/// </summary>
internal sealed class RecoveredRequests
{
    /// <summary>Attempts after which a request is served alone.</summary>
    public const int MaxAttemptsInCompany = 2;

    /// <summary>
    /// Attempts after which it is answered with an error and never tried again: so many that kills, which have nothing
    /// to do with it, hardly ever hit the same request as often.
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

    /// <summary>Requests that were not taken yet.</summary>
    public int Count => _entries.Count;

    /// <summary>Whether an entry's request is among them.</summary>
    public bool Holds(int entry) => _entries.Contains(entry);

    /// <summary>The next that may be taken, given the number of requests in hand.</summary>
    public bool TryNext(int inHand, out int entry)
    {
        if (!_entries.TryPeek(out entry)) return false;
        bool mustBeAlone = _ring.Attempts(entry) >= MaxAttemptsInCompany;
        if (inHand > 0 && (mustBeAlone || _isAlone)) return false;
        _isAlone = mustBeAlone;
        _ = _entries.Dequeue();
        return true;
    }

    /// <summary>One of them is answered; true when it was the last.</summary>
    public bool CountAnswer() => --_unanswered == 0;
}
