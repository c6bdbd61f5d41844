using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Log;

/// <summary>
/// Looks behind a batch that cannot be read for what proves that it was there: then the log is damaged, and does not
/// end. Blocks the thread.
/// </summary>
/// <param name="container">The VDI that has the log.</param>
/// <param name="id">Its identity.</param>
internal sealed class LogEvidence(IVdiContainer container, Guid id)
{
    private readonly byte[] _segment = new byte[VdiFormat.SegmentSize];

    /// <summary>Returns the first proof as a clause of a sentence; null if there is none.</summary>
    public string? Find(LogPosition at)
    {
        HashSet<long> seen = [];
        long segment = VdiFormat.SegmentOf(at.Block), next = VdiFormat.SegmentOf(at.NextSegment);
        for (int first = (int)(at.Block % VdiFormat.SegmentBlocks); segment != 0 && seen.Add(segment); first = 0)
        {
            // A header names a segment only after that was allocated.
            if (container.IsMissing(segment)) return $"segment {segment}, where the log goes on, is not there";
            container.Read(segment * VdiFormat.SegmentBlocks, _segment);
            if (FindIn(at, first, container.IsRemote && seen.Count == 1, out long following) is string proof)
                return proof;
            (segment, next) = next == 0 || seen.Contains(next) ? (following, 0L) : (next, following);
        }

        return null;
    }

    // In a pool a batch is written as a whole, from its header on: what begins otherwise is what is left of one.
    private string? FindIn(LogPosition at, int first, bool findsRemains, out long next)
    {
        next = 0;
        for (int i = first; i < VdiFormat.SegmentBlocks; i++)
        {
            ReadOnlySpan<byte> block = _segment.AsSpan(i * VdiFormat.BlockSize, VdiFormat.BlockSize);
            if (BatchHeader.TryReadClaims(block, id, out long nextSegment, out ulong durable))
            {
                if (durable > at.Sequence) return $"a header further on says that batch {durable - 1} was durable";
                if (nextSegment != 0) next = VdiFormat.SegmentOf(nextSegment);
                findsRemains = false;
            }
            else if (findsRemains && block.ContainsAnyExcept((byte)0))
            {
                return $"block {i} of its segment has a part of a batch";
            }
        }

        return null;
    }
}
