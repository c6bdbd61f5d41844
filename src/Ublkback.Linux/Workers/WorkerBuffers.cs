namespace Ublkback.Linux.Workers;

/// <summary>
/// A bounded pool that the work on one worker shares. Who finds no buffer waits in a queue and has a turn when one has
/// come back; until then nobody behind it gets one, so large requests are not starved by small ones.
/// </summary>
[DataPath]
public sealed class WorkerBuffers(Action<IWork> schedule, long length) : IDisposable
{
    private readonly BufferPool _pool = new(length);
    private readonly Queue<IWork> _waiting = new();

    /// <summary>What each owner of users has.</summary>
    public DomainBufferQuota Owners { get; } = new(schedule);

    /// <summary>Bytes not rented.</summary>
    public long FreeBytes => _pool.FreeBytes;

    /// <summary>
    /// Rents bytes in one piece that starts on a page boundary and never moves. False: <paramref name="work"/> has been
    /// put into the queue, and must try again in each of its turns until it succeeds.
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

    /// <summary>Gives a buffer back.</summary>
    public void Return(Memory<byte> buffer)
    {
        _pool.Return(buffer);
        WakeFirst();
    }

    /// <summary>Takes who waits out of the queue.</summary>
    public void Withdraw(IWork work)
    {
        if (!_waiting.Contains(work)) return;
        for (int left = _waiting.Count; left > 0; left--)
        {
            IWork next = _waiting.Dequeue();
            if (next != work) _waiting.Enqueue(next);
        }

        WakeFirst();
    }

    /// <inheritdoc/>
    public void Dispose() => _pool.Dispose();

    private void WakeFirst()
    {
        if (_waiting.TryPeek(out IWork? first)) schedule(first);
    }
}
