using Ublkback.Block;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Collect;

/// <summary>A VDI that is open for writing, while its file is collected. On its worker.</summary>
internal sealed class CollectionRun
{
    private readonly HashSet<long> _spared = [];
    private List<long> _candidates = [];
    private (BlockAddress First, int Count) _table;

    private CollectionRun(VdiImage image)
    {
        Image = image;
        Disk = image.Parts.Content.Checkpoint;
    }

    /// <summary>The VDI.</summary>
    public VdiImage Image { get; }

    /// <summary>The disk at the checkpoint.</summary>
    public VdiVersion Disk { get; private set; }

    /// <summary>The versions of its snapshots.</summary>
    public IReadOnlyList<VdiVersion> Snapshots { get; private set; } = [];

    /// <summary>What it needs of the segments that are not spared.</summary>
    public IReadOnlyList<VdiVersion> Needed => [Disk, .. Snapshots];

    /// <summary>The segments of its file that something else than its disk needs.</summary>
    public HashSet<long> Shared { get; private set; } = [];

    /// <summary>Segments that were freed as a whole.</summary>
    public int FreedSegments { get; private set; }

    /// <summary>Makes a checkpoint, and takes notice of what is needed then.</summary>
    public static async Task<CollectionRun> BeginAsync(VdiImage image)
    {
        VdiParts parts = image.Parts;
        CollectionRun vdi = new(image);
        // Spared is what nobody has taken yet, now or from now on; and what the log has not left behind at the
        // checkpoint.
        parts.Segments.Known.BeginSparing();
        try
        {
            await vdi.BeginAsync();
            return vdi;
        }
        catch
        {
            vdi.End();
            throw;
        }
    }

    /// <summary>Marks what the VDI itself needs, beside versions of its disk.</summary>
    public void Mark(BlockMarks marks)
    {
        for (int i = 0; i < _table.Count; i++) marks.TryMark(new BlockAddress(_table.First.Value + (ulong)i));
    }

    /// <summary>All is marked but what its disk needs.</summary>
    public void TakeShared(BlockMarks marks) => Shared = [.. marks.SegmentsOf(Image.Parts.Superblock.Vdi)];

    /// <summary>
    /// The segments that only its disk needs, and how many blocks of each, after <see cref="FreeAsync"/>.
    /// </summary>
    public IEnumerable<(long Segment, int Needed)> FindSparse(BlockMarks marks) => _candidates
        .Where(segment => !Shared.Contains(segment))
        .Select(segment => (segment, marks.CountIn(Image.Parts.Superblock.Vdi, segment)))
        .Where(segment => segment.Item2 > 0);

    /// <summary>
    /// Returns by how many segments those that only the disk needs exceed 1.25 times what it needs of them, after
    /// <see cref="FreeAsync"/>.
    /// </summary>
    public double CountExcess(BlockMarks marks)
    {
        int[] needed = [.. FindSparse(marks).Select(segment => segment.Needed)];
        return Math.Max(0, needed.Length - (1.25 * needed.Sum(count => (long)count) / VdiFormat.SegmentBlocks));
    }

    /// <summary>Frees what is not marked, with pauses as long as it is paced; gives the number of blocks.</summary>
    public async Task<long> FreeAsync(BlockMarks marks, Func<bool> isPaced)
    {
        VdiParts parts = Image.Parts;
        await parts.Reader.DrainAsync();
        await Task.Run(() => parts.Container.Claim(0)); // it is still ours
        uint vdi = parts.Superblock.Vdi;
        _spared.UnionWith(parts.Segments.Known.GetSpared());
        _candidates.RemoveAll(_spared.Contains);
        parts.Segments.Known.MarkUsed(_candidates); // until they are forgotten here too
        (long freed, List<long> segments) =
            await Task.Run(() => SegmentSweep.Free(parts.Container, vdi, marks, _candidates, isPaced));
        HashSet<long> free = [.. segments];
        parts.Nodes.Forget(address => address.Vdi == vdi && free.Contains(VdiFormat.SegmentOf(address.Block)));
        parts.Segments.AddFree(segments);
        FreedSegments = segments.Count;
        return parts.Container.FreesWholeSegments ? (long)FreedSegments * VdiFormat.SegmentBlocks : freed;
    }

    /// <summary>The file is not collected any more. Any thread.</summary>
    public void End() => Image.Parts.Segments.Known.EndSparing();

    private async Task BeginAsync()
    {
        VdiParts parts = Image.Parts;
        SpareUnfilled();
        _candidates = await Task.Run(() => parts.Container.FindUsedSegments().ToList());
        BlockStatus status = parts.Log.IsOpen ? await parts.Checkpointer.RunAsync() : BlockStatus.Okay;
        // Without space for one, what the last one did not need is given back: the log since then is spared.
        if (status is BlockStatus.Okay or BlockStatus.NoSpace) status = await parts.Checkpointer.RepeatHeadAsync();
        if (status != BlockStatus.Okay)
            throw new TargetException(
                $"{parts.Container.Path}: nothing is given back, since no checkpoint can be made: {status}");
        SpareUnfilled();
        _spared.UnionWith(parts.Log.Segments);
        VdiHead head = parts.Checkpointer.Head;
        _table = (head.Table.Address, head.TableBlocks);
        Disk = parts.Content.Checkpoint.WithoutOpenLog;
        Snapshots = [.. parts.Content.Snapshots.All.Select(snapshot => snapshot.Content)];
    }

    // Segments that are taken, though they may not be written to their end.
    private void SpareUnfilled()
    {
        VdiParts parts = Image.Parts;
        _spared.Add(parts.NodeWriter.Segment);
        _spared.Add(parts.Log.NextSegment);
    }
}
