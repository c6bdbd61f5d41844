namespace Ublkback.Linux.Workers;

/// <summary>
/// A bounded pool of memory that the work on one worker shares. Work that finds no buffer waits in a queue and has a
/// turn when one was returned. Until then no work behind it gets one, so small requests do not starve large ones.
/// </summary>
/// <param name="schedule">Gives work a turn on the worker.</param>
/// <param name="length">Size of the pool in bytes.</param>
[DataPath]
public sealed class WorkerBuffers(Action<IWork> schedule, long length) : IDisposable
{
    private readonly BufferPool _pool = new(length);
    private readonly Queue<IWork> _waiting = new();
    private readonly Dictionary<int, DomainAccount> _domains = [];
    private readonly Stack<DomainAccount> _unused = new();
    private readonly Dictionary<IWork, long> _denied = []; // by a quota; how many bytes must be free
    private long _leastDenied = long.MaxValue; // of these, or less

    /// <summary>Bytes not rented.</summary>
    public long FreeBytes => _pool.FreeBytes;

    /// <summary>
    /// Rents bytes in one piece that starts on a page boundary and never moves. False: <paramref name="work"/> is in
    /// the queue now, and must try again in each of its turns until it succeeds.
    /// </summary>
    public bool TryRent(IWork work, int length, out Memory<byte> buffer)
    {
        bool isFirst = _waiting.TryPeek(out IWork? first) && first == work;
        if ((first is null || isFirst) && _pool.TryRent(length, out buffer))
        {
            if (!isFirst) return true;
            _ = _waiting.Dequeue();
            WakeFirst();
            return true;
        }

        buffer = default;
        if (!_waiting.Contains(work)) _waiting.Enqueue(work);
        return false;
    }

    /// <summary>Returns a buffer to the pool.</summary>
    public void Return(Memory<byte> buffer)
    {
        _pool.Return(buffer);
        WakeFirst();
        if (FreeBytes >= _leastDenied) WakeDenied();
    }

    /// <summary>Removes work from the queue.</summary>
    public void Withdraw(IWork work)
    {
        if (!_waiting.Contains(work)) return;
        Remove(_waiting, work);
        WakeFirst();
    }

    /// <inheritdoc/>
    public void Dispose() => _pool.Dispose();

    /// <summary>
    /// Rents for a ring of a domain. All rings of a domain hold no more than they leave to others. False: the ring has
    /// a turn when the pool, or its domain, has more.
    /// </summary>
    internal bool TryRentFor(int domain, IWork ring, int length, out Memory<byte> buffer)
    {
        buffer = default;
        if (_domains.TryGetValue(domain, out DomainAccount? account) && account.Held != 0
            && account.Held + length > FreeBytes - length)
        {
            if (!account.Waiting.Contains(ring)) account.Waiting.Enqueue(ring);
            Deny(ring, account.Held + (2L * length));
            return false;
        }

        if (_denied.Count > 0) _denied.Remove(ring);
        if (!TryRent(ring, length, out buffer)) return false;
        if (account is null) _domains[domain] = account = _unused.TryPop(out DomainAccount? old) ? old : new();
        account.Held += length;
        return true;
    }

    /// <summary>Returns a buffer that a ring of a domain rented.</summary>
    internal void ReturnFor(int domain, Memory<byte> buffer)
    {
        Return(buffer);
        DomainAccount account = _domains[domain];
        account.Held -= buffer.Length;
        while (account.Waiting.TryDequeue(out IWork? ring)) schedule(ring);
        if (account.Held > 0) return;
        _domains.Remove(domain);
        _unused.Push(account);
    }

    /// <summary>
    /// Learns that a quota refused a buffer to a ring, which has a turn when so many bytes are free. What the ring, or
    /// its domain, holds may be stuck below a stalled image, so its own returns are not enough.
    /// </summary>
    internal void Deny(IWork ring, long neededBytes)
    {
        Withdraw(ring); // the ring may be the first in the queue, and must not block the others
        _denied[ring] = neededBytes;
        _leastDenied = Math.Min(_leastDenied, neededBytes);
    }

    /// <summary>Removes a ring of a domain from all queues.</summary>
    internal void WithdrawFor(int domain, IWork ring)
    {
        Withdraw(ring);
        _denied.Remove(ring);
        if (_domains.TryGetValue(domain, out DomainAccount? account)) Remove(account.Waiting, ring);
    }

    private static void Remove(Queue<IWork> queue, IWork work)
    {
        for (int left = queue.Count; left > 0; left--)
        {
            IWork next = queue.Dequeue();
            if (next != work) queue.Enqueue(next);
        }
    }

    private void WakeFirst()
    {
        if (_waiting.TryPeek(out IWork? first)) schedule(first);
    }

    private void WakeDenied()
    {
        _leastDenied = long.MaxValue;
        foreach ((IWork ring, long needed) in _denied)
        {
            if (needed > FreeBytes)
            {
                _leastDenied = Math.Min(_leastDenied, needed);
                continue;
            }

            _denied.Remove(ring);
            schedule(ring);
        }
    }

    private sealed class DomainAccount
    {
        public long Held { get; set; }

        public Queue<IWork> Waiting { get; } = new();
    }
}

/// <summary>
/// The share of one ring in a worker's buffers: at most an eighth of what it leaves to others, so that rings whose
/// storage has stalled leave some to the rest. Ten such rings hold two thirds, and twenty hold nine tenths (the dynamic
/// thresholds of network switches, Choudhury and Hahne 1998). A ring that holds nothing may rent any one buffer. On the
/// worker.
/// </summary>
/// <param name="buffers">The worker's buffers.</param>
/// <param name="ring">Has a turn when it may try again.</param>
/// <param name="domain">The ring's domain, whose rings together hold no more than they leave to others.</param>
public sealed class RingBufferQuota(WorkerBuffers buffers, IWork ring, int domain)
{
    private const int LeftForOthers = 8;

    private long _held;

    /// <summary>
    /// Rents bytes in one piece that starts on a page boundary and never moves. False: the ring has a turn when others
    /// have returned enough, and must try again when it has returned a buffer of its own.
    /// </summary>
    public bool TryRent(int length, out Memory<byte> buffer)
    {
        if (_held > 0 && (_held + length) * LeftForOthers > buffers.FreeBytes)
        {
            buffers.Deny(ring, (_held + length) * LeftForOthers);
            buffer = default;
            return false;
        }

        if (!buffers.TryRentFor(domain, ring, length, out buffer)) return false;
        _held += length;
        return true;
    }

    /// <summary>Returns a buffer.</summary>
    public void Return(Memory<byte> buffer)
    {
        _held -= buffer.Length;
        buffers.ReturnFor(domain, buffer);
    }

    /// <summary>Wants no buffer any more.</summary>
    public void Withdraw() => buffers.WithdrawFor(domain, ring);
}
