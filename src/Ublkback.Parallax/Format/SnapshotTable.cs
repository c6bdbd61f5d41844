namespace Ublkback.Parallax.Format;

/// <summary>The snapshots of a VDI, in the order in which they were made. On the VDI's worker.</summary>
internal sealed class SnapshotTable(IEnumerable<VdiSnapshot> snapshots, ulong nextId)
{
    private readonly List<VdiSnapshot> _snapshots = [.. snapshots];

    /// <summary>All of them.</summary>
    public IReadOnlyList<VdiSnapshot> All => _snapshots;

    /// <summary>The number of the next.</summary>
    public ulong NextId { get; private set; } = nextId;

    /// <summary>The snapshot of a name; null when there is none.</summary>
    public VdiSnapshot? Find(string name) => _snapshots.Find(snapshot => snapshot.Name == name);

    /// <summary>Adds one, unless it is known.</summary>
    public void Add(VdiSnapshot snapshot)
    {
        NextId = Math.Max(NextId, snapshot.Id + 1);
        if (!_snapshots.Exists(known => known.Id == snapshot.Id)) _snapshots.Add(snapshot);
    }

    /// <summary>Removes one, if it is there.</summary>
    public void Remove(ulong id) => _snapshots.RemoveAll(snapshot => snapshot.Id == id);

    /// <summary>
    /// Has those that were made after a checkpoint began tell what they hold from it on, and not from the one before.
    /// </summary>
    public void Rebase(VdiVersion checkpoint)
    {
        for (int i = 0; i < _snapshots.Count; i++)
        {
            VdiVersion content = _snapshots[i].Content;
            if (content.Vdi == checkpoint.Vdi && content.End > checkpoint.Start.Sequence)
                _snapshots[i] = _snapshots[i] with { Content = checkpoint with { End = content.End } };
        }
    }

    /// <summary>
    /// The nodes of a snapshot are others from now on, which say the same as far as that can be known.
    /// </summary>
    public void Mend(ulong id, MapEntry node)
    {
        int at = _snapshots.FindIndex(snapshot => snapshot.Id == id);
        VdiVersion content = _snapshots[at].Content;
        _snapshots[at] = _snapshots[at] with { Content = content with { Root = content.Root with { Node = node } } };
    }

    /// <summary>Reads a table.</summary>
    public static IEnumerable<VdiSnapshot> Read(ReadOnlyMemory<byte> table, int count)
    {
        for (int i = 0; i < count; i++)
            yield return VdiSnapshot.Read(table.Span.Slice(i * VdiSnapshot.Length, VdiSnapshot.Length));
    }

    /// <summary>The table as it is kept: in whole blocks.</summary>
    public byte[] ToBlocks()
    {
        byte[] table = new byte[VdiFormat.BlocksFor((long)_snapshots.Count * VdiSnapshot.Length) * VdiFormat.BlockSize];
        for (int i = 0; i < _snapshots.Count; i++)
            _snapshots[i].Write(table.AsSpan(i * VdiSnapshot.Length, VdiSnapshot.Length));
        return table;
    }
}
