using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Map;

/// <summary>
/// Where the blocks of a disk are: nodes in the file, what has changed since they were written, and, while new ones are
/// being written, what these will hold. On the VDI's worker.
/// </summary>
[DataPath]
internal sealed class BlockMap(NodeCache nodes, MapRoot root)
{
    private Overlay _changes = new();
    private Overlay? _frozen;
    private Overlay? _spare;
    private long _number; // of the last change

    /// <summary>The nodes in the file.</summary>
    public MapRoot Root { get; private set; } = root;

    /// <summary>How many changes are not in nodes.</summary>
    public int ChangeCount => _changes.Count;

    /// <summary>True if all blocks are known to read as zeros.</summary>
    public bool IsEmpty => Root.Node.Address.IsNone && _changes.HasNoBlocks && _frozen?.HasNoBlocks != false;

    /// <summary>How many nodes the changes since the last checkpoint began need at most.</summary>
    public long NodeCount => _changes.NodeCount;

    /// <summary>How many nodes the changes that were set aside need at most.</summary>
    public long FrozenNodeCount => _frozen?.NodeCount ?? 0;

    /// <summary>Finds a block; false when that needs a node which is not in memory.</summary>
    public bool TryFind(long block, out MapEntry entry, out MapEntry missing)
    {
        missing = default;
        if (_changes.TryGet(block, out entry) || (_frozen?.TryGet(block, out entry) ?? false)) return true;
        return TryFindNode(block, 0, out entry, out missing, out _);
    }

    /// <summary>Has in memory what <see cref="TryFind"/> missed.</summary>
    public ValueTask<BlockStatus> LoadAsync(MapEntry missing) => nodes.LoadAsync(missing);

    /// <summary>
    /// Finds the node of a level that covers a block, as the nodes in the file have it. If a node above cannot be read,
    /// returns that node with its level, and the status of the read.
    /// </summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<(BlockStatus Status, MapEntry Entry)> FindNodeAsync(long block, int level)
    {
        MapEntry entry;
        while (!TryFindNode(block, level, out entry, out MapEntry missing, out int missingLevel))
        {
            BlockStatus status = await nodes.LoadAsync(missing);
            if (status != BlockStatus.Okay) return (status, missing with { OlderLevel = missingLevel });
        }

        return (BlockStatus.Okay, entry);
    }

    /// <summary>A block was written.</summary>
    public void Set(long block, MapEntry entry) => _changes.Set(block, entry, ++_number);

    /// <summary>Blocks read as zeros from now on.</summary>
    public void Clear(long first, long count) => _changes.Clear(first, count, ++_number);

    /// <summary>Sets aside what has changed until now, to be written into nodes. It no longer changes.</summary>
    public Overlay Freeze()
    {
        _frozen = _changes;
        _changes = _spare ?? new Overlay(); // off the path: a checkpoint
        _spare = null;
        return _frozen;
    }

    /// <summary>What was set aside is in nodes now.</summary>
    public void Replace(MapRoot root)
    {
        Root = root;
        Forget();
    }

    /// <summary>The nodes in the file are others from now on, which say the same as far as that can be known.</summary>
    public void Mend(MapEntry node) => Root = Root with { Node = node };

    /// <summary>What was set aside could not be written.</summary>
    public void Thaw()
    {
        _changes.AddEarlier(_frozen!);
        Forget();
    }

    /// <summary>Is as another from now on, which is not used any more. Nothing is set aside.</summary>
    public void Become(BlockMap other)
    {
        Root = other.Root;
        _changes = other._changes;
        _number = other._number;
    }

    private void Forget()
    {
        _spare = _frozen!;
        _spare.Reset();
        _frozen = null;
    }

    private bool TryFindNode(long block, int level, out MapEntry entry, out MapEntry missing, out int missingLevel)
    {
        missing = default;
        missingLevel = 0;
        entry = Root.Covers(block) ? Root.Node : default;
        for (int at = Root.Depth; at > level && entry.Address.IsPlace; at--)
        {
            if (!nodes.TryGet(entry, out ReadOnlySpan<byte> node))
            {
                missing = entry;
                missingLevel = at;
                return false;
            }

            entry = MapEntry.Read(node, MapRoot.EntryOf(block, at));
            if (entry.OlderLevel != 0) at = entry.OlderLevel + 1; // an older node has the entry that counts
        }

        return true;
    }
}
