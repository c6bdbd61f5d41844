namespace Ublkback.Parallax.Format;

/// <summary>A snapshot of a VDI.</summary>
/// <param name="Id">Its number, of which there are no two in the life of a VDI.</param>
/// <param name="Name">Its name.</param>
/// <param name="CreatedMs">When it was made, in milliseconds since 1970.</param>
/// <param name="Content">What it holds.</param>
internal sealed record VdiSnapshot(ulong Id, string Name, long CreatedMs, VdiVersion Content)
{
    /// <summary>Bytes of an entry in the table of snapshots.</summary>
    public const int Length = 256;

    public static VdiSnapshot Read(ReadOnlySpan<byte> entry)
    {
        FieldReader fields = new(entry);
        return new VdiSnapshot(
            fields.ReadUInt64(), fields.ReadText(VdiName.FieldLength), fields.ReadInt64(), VdiVersion.Read(ref fields));
    }

    public void Write(Span<byte> entry)
    {
        FieldWriter fields = new(entry);
        fields.Write(Id);
        fields.Write(Name, VdiName.FieldLength);
        fields.Write(CreatedMs);
        Content.Write(ref fields);
    }
}
