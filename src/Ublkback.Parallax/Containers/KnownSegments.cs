using Ublkback.Block;

namespace Ublkback.Parallax.Containers;

/// <summary>
/// The segments that a process uses, or is about to use, since it opened a VDI: nothing may be written to them yet, so
/// that they look free. Any thread.
/// </summary>
internal sealed class KnownSegments(IVdiContainer container)
{
    private readonly Lock _lock = new();
    private readonly HashSet<long> _known = [];
    private readonly HashSet<long> _unused = []; // of these, those that nobody has taken
    private HashSet<long>? _spared;

    /// <summary>Adds a segment that looks free. Returns false if it is not.</summary>
    public bool TryAdd(long segment)
    {
        lock (_lock)
        {
            if (!_known.Add(segment)) return false;
            _unused.Add(segment);
            _spared?.Add(segment);
            return true;
        }
    }

    /// <summary>Allocates a segment that was added; without space, it is forgotten. Blocks the thread.</summary>
    public BlockStatus Allocate(long segment, bool isFlushedOften, bool isReserve)
    {
        BlockStatus status = BlockStatus.IoError;
        try
        {
            return status = container.Allocate(segment, isFlushedOften, isReserve);
        }
        finally
        {
            if (status != BlockStatus.Okay) Forget([segment]);
        }
    }

    /// <summary>Somebody takes a segment to write it.</summary>
    public void Take(long segment)
    {
        lock (_lock) _unused.Remove(segment);
    }

    /// <summary>
    /// Segments are not to be given out, even if they look free, until they are forgotten.
    /// </summary>
    public void MarkUsed(params IEnumerable<long> segments)
    {
        lock (_lock) _known.UnionWith(segments);
    }

    /// <summary>
    /// Takes notice from now on of segments that nobody has taken yet, however they look in the file.
    /// </summary>
    public void BeginSparing()
    {
        lock (_lock) _spared = [.. _unused];
    }

    /// <summary>The segments of which notice was taken.</summary>
    public IReadOnlyList<long> GetSpared()
    {
        lock (_lock) return [.. _spared!];
    }

    /// <summary>Takes no notice any more. Any thread.</summary>
    public void EndSparing()
    {
        lock (_lock) _spared = null;
    }

    /// <summary>Segments are free. Returns whether one of them was not before.</summary>
    public bool Forget(IEnumerable<long> segments)
    {
        lock (_lock)
        {
            int before = _known.Count;
            _known.ExceptWith(segments);
            _unused.ExceptWith(segments);
            return _known.Count < before;
        }
    }
}
