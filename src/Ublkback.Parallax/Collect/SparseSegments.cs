using Ublkback.Block;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Collect;

/// <summary>
/// Empties segments of which little is needed, where only a whole segment gives space back: what they hold of the disk
/// is written again at the end of the log. The next collection frees them. On the VDI's worker.
/// </summary>
/// <param name="image">The VDI.</param>
/// <param name="others">Opens other VDIs' files.</param>
internal sealed class SparseSegments(VdiImage image, OpenVdiFile others)
{
    /// <summary>
    /// Most blocks that a segment needs which is emptied. So the others take at most 1.5 times what is needed.
    /// </summary>
    public const int MaxNeeded = VdiFormat.SegmentBlocks * 2 / 3;

    private const int MaxSegments = 256; // 1 GiB between two collections
    private const int MaxRun = 256; // blocks that are written at once: 1 MiB

    private readonly VdiParts _parts = image.Parts;

    /// <summary>Empties some, those first that need least.</summary>
    /// <param name="disk">The disk, as the last collection has seen it.</param>
    /// <param name="sparse">Segments with blocks of it, and nothing else that is needed; and how many.</param>
    /// <param name="freed">Segments that the collections before have freed: as many may be filled on full storage.
    /// </param>
    /// <returns>How many blocks were written.</returns>
    public async Task<long> EmptyAsync(VdiVersion disk, IEnumerable<(long Segment, int Needed)> sparse, int freed)
    {
        bool isFull = _parts.Segments.Status == BlockStatus.NoSpace;
        int room = isFull ? Math.Clamp(freed, 1, MaxSegments) : MaxSegments;
        HashSet<long> chosen = [];
        long blocks = 0;
        foreach ((long segment, int needed) in sparse.Where(one => one.Needed <= MaxNeeded).OrderBy(one => one.Needed))
        {
            blocks += needed;
            if (chosen.Count > 0 && blocks > (long)room * MaxNeeded) break;
            chosen.Add(segment);
        }

        if (chosen.Count == 0) return 0;
        if (isFull) await _parts.Segments.ReplenishAsync(room);
        long written = 0;
        List<long> found = await Task.Run(() => Find(disk, chosen));
        for (int at = 0, next; at < found.Count; at = next)
        {
            next = at + 1;
            while (next < found.Count && next - at < MaxRun && found[next] == found[next - 1] + 1) next++;
            image.Closing.ThrowIfCancellationRequested();
            // Who needs the disk alone may wait for this collection.
            if (!_parts.Epochs.TryBegin(out int epoch)) break;
            BlockStatus? status = await _parts.Writer.TryMoveAsync(found[at], next - at);
            _parts.Epochs.End(epoch);
            if (status == BlockStatus.NoSpace) break;
            if (status == BlockStatus.Okay) written += next - at; // else it stays: it is damaged, or a guest's
        }

        return written;
    }

    // For a node, the first block below it: when that is written, so is the node.
    private List<long> Find(VdiVersion disk, HashSet<long> segments)
    {
        SortedSet<long> blocks = [];
        uint vdi = _parts.Superblock.Vdi;
        using VersionWalker walker = new(others, new BlockMarks())
        {
            Cancellation = image.Closing,
            VisitPlace = (block, at) =>
            {
                if (at.Vdi == vdi && segments.Contains(VdiFormat.SegmentOf(at.Block))) blocks.Add(block);
            },
        };
        walker.WalkNodes(disk);
        return [.. blocks.Where(block => block < VdiFormat.BlocksFor(_parts.Content.Size))];
    }
}
