namespace Ublkback.Backend.Requests;

/// <summary>
/// Something that lives as long as anybody holds a reference. Creating takes the first; when the last is dropped,
/// <see cref="Release"/> runs, once, on the thread that dropped it. Any thread.
/// </summary>
internal abstract class ReferenceCounted
{
    private int _references = 1;

    /// <summary>References held now.</summary>
    public int References => Volatile.Read(ref _references);

    /// <summary>Takes a reference. The caller must know that somebody holds one.</summary>
    /// <exception cref="InvalidOperationException">Nobody does: a bug.</exception>
    public void AddReference()
    {
        if (Interlocked.Increment(ref _references) <= 1)
            throw new InvalidOperationException($"a reference was taken on a released {GetType().Name}");
    }

    /// <summary>Drops a reference.</summary>
    /// <exception cref="InvalidOperationException">There was none left: a bug.</exception>
    public void DropReference()
    {
        int left = Interlocked.Decrement(ref _references);
        if (left == 0) Release();
        else if (left < 0)
            throw new InvalidOperationException($"a reference too many was dropped on a {GetType().Name}");
    }

    /// <summary>Frees what the object holds. Must not block: it may run on a worker.</summary>
    protected abstract void Release();
}
