namespace Ublkback.Parallax.Format;

/// <summary>
/// Says how far the log of a VDI was durable. Damage of what is before can then not be taken for the end of the log.
/// </summary>
/// <param name="Vdi">The identity of the VDI.</param>
/// <param name="Count">Counts marks. Two blocks hold them in turn, so that one of them is always complete.</param>
/// <param name="Sequence">All batches before this one were durable.</param>
internal sealed record VdiMark(Guid Vdi, ulong Count, ulong Sequence)
{
    private const ulong Magic = 0x314B_5241_4D49_4456; // "VDIMARK1"

    /// <summary>The block of the copy that it goes to.</summary>
    public long Block => VdiFormat.FirstMarkBlock + (long)(Count & 1);

    public byte[] ToBlock()
    {
        byte[] block = new byte[VdiFormat.BlockSize];
        FieldWriter fields = new(block);
        fields.Write(Magic);
        fields.Write(Vdi);
        fields.Write(Count);
        fields.Write(Sequence);
        CheckedBlock.Seal(block);
        return block;
    }

    /// <summary>Reads a mark; null if the block is not a mark of this VDI.</summary>
    public static VdiMark? TryRead(ReadOnlySpan<byte> block, Guid vdi)
    {
        FieldReader fields = new(block);
        if (fields.ReadUInt64() != Magic || !CheckedBlock.IsValid(block)) return null;
        VdiMark mark = new(fields.ReadGuid(), fields.ReadUInt64(), fields.ReadUInt64());
        return mark.Vdi == vdi ? mark : null;
    }
}
