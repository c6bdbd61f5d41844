using Ublkback.Block;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Map;

/// <summary>An open disk as its log tells it: the map, the size and the snapshots. On the VDI's worker.</summary>
/// <param name="vdi">Its number.</param>
/// <param name="map">Where its blocks are.</param>
/// <param name="snapshots">Its snapshots.</param>
/// <param name="checkpoint">What the head in the file says of it.</param>
internal sealed class VdiContent(uint vdi, BlockMap map, SnapshotTable snapshots, VdiVersion checkpoint)
{
    /// <summary>Where its blocks are.</summary>
    public BlockMap Map => map;

    /// <summary>Its snapshots.</summary>
    public SnapshotTable Snapshots => snapshots;

    /// <summary>Its size in bytes.</summary>
    public long Size { get; private set; } = checkpoint.Size;

    /// <summary>What the head in the file says: where the nodes are, and where the log goes on after them.</summary>
    public VdiVersion Checkpoint { get; set; } = checkpoint;

    /// <summary>Has the data and the size of another from now on, which is not used any more.</summary>
    public void Become(VdiContent other)
    {
        map.Become(other.Map);
        Size = other.Size;
        Checkpoint = other.Checkpoint;
    }

    /// <summary>Does what an entry of its own log tells.</summary>
    public void Apply(LogEntry entry, MapEntry place, ReadOnlySpan<byte> block, ulong sequence)
    {
        switch (entry.Kind)
        {
            case LogEntryKind.Snapshot:
                snapshots.Add(ReadSnapshot(block) with { Content = Checkpoint with { Vdi = vdi, End = sequence + 1 } });
                break;
            case LogEntryKind.DeleteSnapshot:
                snapshots.Remove((ulong)entry.Subject);
                break;
            default:
                ApplyData(entry, place);
                break;
        }
    }

    /// <summary>Does what an entry tells of the disk's data, whoever's log it is in.</summary>
    public void ApplyData(LogEntry entry, MapEntry place)
    {
        switch (entry.Kind)
        {
            case LogEntryKind.Data:
                map.Set(entry.Subject, place);
                break;
            case LogEntryKind.Discard:
                map.Clear(entry.Subject, entry.Value);
                break;
            case LogEntryKind.Resize:
                long newSize = entry.Subject * BlockRequest.SectorSize;
                // What lies behind the end of a smaller disk is gone: it must not show when it is larger again.
                long kept = VdiFormat.BlocksFor(newSize);
                if (newSize < Size) map.Clear(kept, VdiFormat.BlocksFor(Size) - kept);
                Size = newSize;
                break;
        }
    }

    /// <summary>Writes what is to be known of a snapshot into the block of its entry.</summary>
    public static void WriteSnapshot(Span<byte> block, ulong id, string name, long createdMs)
    {
        block.Clear();
        FieldWriter fields = new(block);
        fields.Write(id);
        fields.Write(name, VdiName.FieldLength);
        fields.Write(createdMs);
    }

    private static VdiSnapshot ReadSnapshot(ReadOnlySpan<byte> block)
    {
        FieldReader fields = new(block);
        return new VdiSnapshot(fields.ReadUInt64(), fields.ReadText(VdiName.FieldLength), fields.ReadInt64(), null!);
    }
}
