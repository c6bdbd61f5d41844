namespace Ublkback.Linux.Workers;

/// <summary>
/// What the users of a worker's buffers hold who belong together, such as the rings of a domain: no more than they
/// leave to others, however many they are. On the worker.
/// </summary>
[DataPath]
public sealed class DomainBufferQuota(Action<IWork> schedule)
{
    private readonly Dictionary<int, Owner> _owners = [];
    private readonly Stack<Owner> _unused = new();

    /// <summary>
    /// Whether a user may rent so much of what is free. False: it has a turn when one of its owner's has given
    /// something back.
    /// </summary>
    public bool MayTake(int owner, IWork user, int length, long freeBytes)
    {
        if (!_owners.TryGetValue(owner, out Owner? account) || account.Held == 0
            || account.Held + length <= freeBytes - length)
            return true;
        if (!account.Waiting.Contains(user)) account.Waiting.Enqueue(user);
        return false;
    }

    /// <summary>A user has rented something.</summary>
    public void Take(int owner, int length)
    {
        if (!_owners.TryGetValue(owner, out Owner? account))
            _owners[owner] = account = _unused.TryPop(out Owner? unused) ? unused : new Owner();
        account.Held += length;
    }

    /// <summary>A user has given something back.</summary>
    public void Return(int owner, int length)
    {
        Owner account = _owners[owner];
        account.Held -= length;
        while (account.Waiting.TryDequeue(out IWork? user)) schedule(user);
        if (account.Held > 0) return;
        _owners.Remove(owner);
        _unused.Push(account);
    }

    /// <summary>A user does not wait any more.</summary>
    public void Withdraw(int owner, IWork user)
    {
        if (!_owners.TryGetValue(owner, out Owner? account)) return;
        for (int left = account.Waiting.Count; left > 0; left--)
        {
            IWork next = account.Waiting.Dequeue();
            if (next != user) account.Waiting.Enqueue(next);
        }
    }

    private sealed class Owner
    {
        public long Held { get; set; }

        public Queue<IWork> Waiting { get; } = new();
    }
}
