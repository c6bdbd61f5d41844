using Ublkback.Linux.Workers;

namespace Ublkback.Nbd.Client;

/// <summary>
/// The links of a disk, one for each worker that uses it. Where a server takes fewer connections, links without one use
/// those of others. Any thread.
/// </summary>
internal sealed class NbdPeers
{
    private readonly Lock _gate = new();
    private volatile (Worker Worker, NbdLink Link)[] _all = [];
    private long _lostAt;
    private long _endedAt;

    /// <summary>All of them.</summary>
    public IReadOnlyList<(Worker Worker, NbdLink Link)> All => _all;

    /// <summary>When a connection was last lost; a time of the stopwatch, or 0.</summary>
    public long LostAt => Volatile.Read(ref _lostAt);

    /// <summary>When a server said that it ends; a time of the stopwatch, or 0.</summary>
    public long EndedAt => Volatile.Read(ref _endedAt);

    /// <summary>Adds one.</summary>
    public void Add(Worker worker, NbdLink link)
    {
        lock (_gate) _all = [.. _all, (worker, link)];
    }

    /// <summary>
    /// Another link whose connection was begun after a time. A request that was lost is asked again only on such: the
    /// server waits then until nothing of the lost connection can overtake it.
    /// </summary>
    public bool TryFind(NbdLink asking, long after, out (Worker Worker, NbdLink Link) found)
    {
        foreach ((Worker Worker, NbdLink Link) entry in _all)
        {
            found = entry;
            if (entry.Link != asking && entry.Link.ConnectedSince > after) return true;
        }

        found = default;
        return false;
    }

    /// <summary>A link has lost its connection.</summary>
    public void NoteLoss(long at) => Volatile.Write(ref _lostAt, at);

    /// <summary>
    /// The server of a link has said that it ends: the others let it go too, since a server may wait for that.
    /// </summary>
    /// <param name="told">The link.</param>
    /// <param name="begunAt">When its connection was begun.</param>
    /// <param name="at">Now.</param>
    public void NoteEnd(NbdLink told, long begunAt, long at)
    {
        if (begunAt < EndedAt) return; // the others know of this end
        Volatile.Write(ref _endedAt, at);
        foreach ((Worker worker, NbdLink link) in _all)
        {
            if (link != told) worker.Post(() => link.Leave(at));
        }
    }

    /// <summary>A link has a connection: others may go on.</summary>
    public void NoteConnection(NbdLink connected)
    {
        foreach ((Worker worker, NbdLink link) in _all)
        {
            if (link != connected) worker.Post(link.Wake);
        }
    }
}
