using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Log;

namespace Ublkback.Parallax.Collect;

/// <summary>
/// Finds all blocks of all files that versions of disks need: data, nodes, and the parts of logs that are read after
/// the nodes. What is marked was seen before, with all below it. Blocks the thread.
/// </summary>
/// <param name="open">Opens the files.</param>
/// <param name="marks">Gets a mark for each block.</param>
internal sealed class VersionWalker(OpenVdiFile open, BlockMarks marks) : IDisposable
{
    // blocks of a batch that nobody needs, from which on it is worth it to give them back
    private const int MinRun = 64;

    private readonly Dictionary<uint, (IVdiContainer Container, VdiSuperblock Superblock)> _files = [];
    private readonly NodeReadAhead _ahead = new();

    /// <summary>
    /// Takes blocks of data that are seen for the first time; null when their content does not matter.
    /// </summary>
    public Action<BlockAddress, uint>? VisitData { get; init; }

    /// <summary>
    /// Takes nodes and data that are seen for the first time, with the first block of the disk that they are for; not
    /// what only a log knows. Null when nobody asks.
    /// </summary>
    public Action<long, BlockAddress>? VisitPlace { get; init; }

    /// <summary>Ends the walk.</summary>
    public CancellationToken Cancellation { get; init; }

    /// <summary>
    /// Takes what is damaged; null when that ends the walk, by an <see cref="InvalidDataException"/>.
    /// </summary>
    public Action<string>? VisitDamage { get; init; }

    /// <summary>Nodes that were read.</summary>
    public long Nodes { get; private set; }

    /// <summary>Blocks of disks that were given up.</summary>
    public long Lost { get; private set; }

    /// <summary>Walks through versions: their nodes, and then their logs.</summary>
    /// <exception cref="InvalidDataException">Something is damaged.</exception>
    public void Walk(IReadOnlyCollection<VdiVersion> versions)
    {
        foreach (VdiVersion version in versions) WalkNodes(version);
        WalkLogs(versions);
    }

    /// <summary>Walks through the nodes of a version.</summary>
    /// <exception cref="InvalidDataException">Something is damaged.</exception>
    public void WalkNodes(VdiVersion version) => WalkNode(version.Root.Node, version.Root.Depth, 0);

    /// <summary>
    /// Walks through the parts of logs that belong to versions. What was written over before any of them ends is not
    /// needed.
    /// </summary>
    /// <exception cref="InvalidDataException">Something is damaged.</exception>
    public void WalkLogs(IEnumerable<VdiVersion> versions)
    {
        foreach (IGrouping<(uint, LogPosition), ulong> log in versions
            .Where(version => version.End == 0 || version.End > version.Start.Sequence)
            .GroupBy(version => (version.Vdi, version.Start), version => version.End))
        {
            Cancellation.ThrowIfCancellationRequested();
            Try(() => WalkLog(log.Key.Item1, log.Key.Item2, [.. log.Distinct().Order()]));
        }
    }

    /// <summary>Reads a block, and compares its checksum.</summary>
    /// <exception cref="InvalidDataException">It is damaged.</exception>
    public void Read(BlockAddress at, uint crc, Span<byte> block)
    {
        try
        {
            FileOf(at.Vdi).Container.Read(at.Block, block);
        }
        catch (Exception failure) when (failure is IOException or TargetException)
        {
            throw new InvalidDataException($"{at} cannot be read: {failure.Message}", failure);
        }

        uint found = Crc32C.Of(block);
        if (found != crc)
            throw new InvalidDataException($"{at} is damaged: its checksum is {found:x8} and was {crc:x8}");
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach ((IVdiContainer container, _) in _files.Values) container.Dispose();
    }

    private void WalkLog(uint vdi, LogPosition start, ulong[] ends)
    {
        (IVdiContainer container, VdiSuperblock superblock) = FileOf(vdi);
        LogReader reader = new(container, vdi, superblock.Id);
        if (ends[0] == 0)
        {
            // Where the log ends is told by all that is in it.
            reader.Read(start, 0, (_, _, _, _) => { }, (block, count) =>
            {
                for (int i = 0; i <= count; i++) marks.TryMark(BlockAddress.Of(vdi, block + i));
            });
            return;
        }

        LogNeeds needs = new(ends, at => VisitBlock(at));
        List<(long Block, int Count)> batches = [];
        reader.Read(start, ends[^1], needs.Visit, (block, count) => batches.Add((block, count)));
        needs.End();
        foreach ((long block, int count) in batches)
            marks.MarkShortRuns(BlockAddress.Of(vdi, block), 1 + count, MinRun);
    }

    private bool VisitBlock(MapEntry at)
    {
        if (!at.Address.IsPlace || !marks.TryMark(at.Address)) return false;
        Try(() => VisitData?.Invoke(at.Address, at.Crc));
        return true;
    }

    private void WalkNode(MapEntry at, int level, long first)
    {
        if (at.Address.IsLost) Lost += 1L << (level * MapRoot.FanoutBits);
        if (!at.Address.IsPlace || !marks.TryMark(at.Address)) return;
        Cancellation.ThrowIfCancellationRequested();
        VisitPlace?.Invoke(first, at.Address);
        byte[] node = new byte[VdiFormat.BlockSize];
        if (!TryReadAhead(at, node) && !Try(() => Read(at.Address, at.Crc, node))) return;
        Nodes++;
        for (int i = 0; i < MapRoot.Fanout; i++)
        {
            MapEntry entry = MapEntry.Read(node, i);
            long below = first + ((long)i << ((level - 1) * MapRoot.FanoutBits));
            if (entry.OlderLevel > 0) WalkNode(entry with { OlderLevel = 0 }, entry.OlderLevel, below);
            else if (level > 1) WalkNode(entry, level - 1, below);
            else if (entry.Address.IsLost) Lost++;
            else if (VisitBlock(entry)) VisitPlace?.Invoke(below, entry.Address);
        }
    }

    private bool TryReadAhead(MapEntry at, Span<byte> node)
    {
        try
        {
            return _ahead.TryRead(FileOf(at.Address.Vdi).Container, at, node);
        }
        catch (Exception failure) when (failure is TargetException or IOException)
        {
            return false; // the usual way says what is wrong
        }
    }

    private bool Try(Action action)
    {
        try
        {
            action();
            return true;
        }
        catch (Exception failure) when (failure is InvalidDataException or TargetException or IOException)
        {
            if (VisitDamage is null) throw new InvalidDataException(failure.Message, failure);
            VisitDamage(failure.Message);
            return false;
        }
    }

    private (IVdiContainer Container, VdiSuperblock Superblock) FileOf(uint vdi)
    {
        if (!_files.TryGetValue(vdi, out (IVdiContainer, VdiSuperblock) file)) _files[vdi] = file = open(vdi);
        return file;
    }
}
