namespace Ublkback.Parallax.Containers;

/// <summary>
/// The segments of a VDI in a pool, as its writer knows them: those that it found once, and what it has made and
/// removed since. Nobody else makes any. Any thread.
/// </summary>
internal sealed class OwnSegments
{
    private readonly Lock _gate = new();
    private readonly HashSet<long> _used = [];
    private readonly HashSet<long> _removed = []; // until all are known
    private bool _isComplete;

    /// <summary>The segments in order; null until <see cref="Complete"/> was called.</summary>
    public IReadOnlyList<long>? TryList()
    {
        lock (_gate) return _isComplete ? [.. _used.Order()] : null;
    }

    /// <summary>A segment was made.</summary>
    public void Add(long segment)
    {
        lock (_gate)
        {
            _used.Add(segment);
            _removed.Remove(segment);
        }
    }

    /// <summary>A segment was removed.</summary>
    public void Remove(long segment)
    {
        lock (_gate)
        {
            _used.Remove(segment);
            if (!_isComplete) _removed.Add(segment);
        }
    }

    /// <summary>All objects were looked at, each at some moment since this was made.</summary>
    public void Complete(IEnumerable<long> found)
    {
        lock (_gate)
        {
            if (_isComplete) return; // somebody else has looked too
            _used.UnionWith(found.Where(segment => !_removed.Contains(segment)));
            _removed.Clear();
            _isComplete = true;
        }
    }
}
