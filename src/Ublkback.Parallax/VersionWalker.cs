using Ublkback.Block;

namespace Ublkback.Parallax;

/// <summary>
/// Finds all blocks of all files that versions of disks need: data, nodes, and the parts of logs that are read after the nodes. What is
/// marked was seen before, with all below it. Blocks the thread.
/// </summary>
/// <param name="open">Opens the files.</param>
/// <param name="marks">Gets a mark for each block.</param>
internal sealed class VersionWalker(OpenVdiFile open, BlockMarks marks) : IDisposable
{
    private readonly Dictionary<uint, (IVdiContainer Container, VdiSuperblock Superblock)> _files = [];
    private readonly Dictionary<(uint Vdi, long Block, ulong Sequence), ulong> _logs = [];

    /// <summary>Takes blocks of data that are seen for the first time; null when their content does not matter.</summary>
    public Action<BlockAddress, uint>? VisitData { get; init; }

    /// <summary>Ends the walk.</summary>
    public CancellationToken Cancellation { get; init; }

    /// <summary>Takes what is damaged; null when that ends the walk, by an <see cref="InvalidDataException"/>.</summary>
    public Action<string>? VisitDamage { get; init; }

    /// <summary>Nodes that were read.</summary>
    public long Nodes { get; private set; }

    /// <summary>Blocks of disks that were given up.</summary>
    public long Lost { get; private set; }

    /// <summary>Walks through a version.</summary>
    /// <exception cref="InvalidDataException">Something is damaged.</exception>
    public void Walk(VdiVersion version)
    {
        WalkNode(version.Root.Node, version.Root.Depth);
        (uint, long, ulong) log = (version.Vdi, version.Start.Block, version.Start.Sequence);
        if (version.End != 0 && (version.End <= version.Start.Sequence || _logs.TryGetValue(log, out ulong end) && end >= version.End)) return;
        _logs[log] = version.End == 0 ? ulong.MaxValue : version.End;
        Try(() =>
        {
            (IVdiContainer container, VdiSuperblock superblock) = FileOf(version.Vdi);
            new LogReader(container, version.Vdi, superblock.Id).Read(version.Start, version.End, (_, _, _, _) => { }, (block, count) =>
            {
                for (int i = 0; i <= count; i++) marks.TryMark(BlockAddress.Of(version.Vdi, block + i));
            });
        });
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
        if (found != crc) throw new InvalidDataException($"{at} is damaged: its checksum is {found:x8} and was {crc:x8}");
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach ((IVdiContainer container, _) in _files.Values) container.DisposeAsync().AsTask().GetAwaiter().GetResult();
    }

    private void WalkNode(MapEntry at, int level)
    {
        if (at.Address.IsLost) Lost += 1L << (level * MapRoot.FanoutBits);
        if (!at.Address.IsPlace || !marks.TryMark(at.Address)) return;
        Cancellation.ThrowIfCancellationRequested();
        byte[] node = new byte[VdiFormat.BlockSize];
        if (!Try(() => Read(at.Address, at.Crc, node))) return;
        Nodes++;
        for (int i = 0; i < MapRoot.Fanout; i++)
        {
            MapEntry entry = MapEntry.Read(node, i);
            if (level > 1) WalkNode(entry, level - 1);
            else if (entry.Address.IsLost) Lost++;
            else if (entry.Address.IsPlace && marks.TryMark(entry.Address)) _ = Try(() => VisitData?.Invoke(entry.Address, entry.Crc));
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
