namespace Ublkback.Parallax.Format;

/// <summary>A place between two batches of a log.</summary>
/// <param name="Block">Where the next batch is, if it fits into the rest of the segment.</param>
/// <param name="NextSegment">The first block of the segment where it is otherwise; 0 when that is not known
/// yet.</param>
/// <param name="Sequence">The number of the next batch.</param>
/// <param name="Chain">The checksum of the header before, which the next header repeats.</param>
internal readonly record struct LogPosition(long Block, long NextSegment, ulong Sequence, uint Chain)
{
    public static LogPosition Read(ref FieldReader fields) =>
        new(fields.ReadInt64(), fields.ReadInt64(), fields.ReadUInt64(), fields.ReadUInt32());

    public void Write(ref FieldWriter fields)
    {
        fields.Write(Block);
        fields.Write(NextSegment);
        fields.Write(Sequence);
        fields.Write(Chain);
    }
}
