namespace Ublkback.Parallax.Format;

/// <summary>
/// The head of a VDI: what is found first when it is opened. Two are kept, written in turn; the newest valid one
/// counts.
/// </summary>
/// <param name="Generation">Counts heads, from 1.</param>
/// <param name="Epoch">Counts those who opened it for writing, from 1.</param>
/// <param name="Content">The disk as it is.</param>
/// <param name="NextSnapshot">The number of the next snapshot.</param>
/// <param name="Table">The table of snapshots: its first block, and the checksum of all its blocks; the default when
/// there are none.</param>
/// <param name="SnapshotCount">Entries of the table.</param>
/// <param name="Origin">What it was cloned from, as it was called then; empty when from nothing.</param>
/// <param name="IsUnfinished">True if a copy into the disk was begun and has not ended.</param>
internal sealed record VdiHead(
    ulong Generation, ulong Epoch, VdiVersion Content, ulong NextSnapshot, MapEntry Table, int SnapshotCount,
    string Origin, bool IsUnfinished = false)
{
    private const ulong Magic = 0x3144_4145_4849_4456; // "VDIHEAD1"
    private const int OriginLength = 2 * VdiName.FieldLength;

    /// <summary>Which of the two places it goes to.</summary>
    public long Block => VdiFormat.FirstHeadBlock + (long)(Generation & 1);

    /// <summary>Blocks of the table.</summary>
    public int TableBlocks => (SnapshotCount * VdiSnapshot.Length + VdiFormat.BlockSize - 1) / VdiFormat.BlockSize;

    /// <summary>Writes the head into a block, and reads it back by the check that will read it.</summary>
    /// <param name="block">The block.</param>
    /// <param name="vdi">The identity of the VDI, which its superblock has.</param>
    /// <exception cref="InvalidDataException">The check refuses it; it must not be written to storage.</exception>
    public void Write(Span<byte> block, Guid vdi)
    {
        block.Clear();
        FieldWriter fields = new(block);
        fields.Write(Magic);
        fields.Write(Generation);
        fields.Write(Epoch);
        Content.Write(ref fields);
        fields.Write(NextSnapshot);
        fields.Write(Table.Address.Value);
        fields.Write(Table.Crc);
        fields.Write((uint)SnapshotCount);
        fields.Write(Origin, OriginLength);
        fields.Write(vdi);
        fields.Write(IsUnfinished ? 1u : 0);
        CheckedBlock.Seal(block);
        if (TryRead(block, vdi) != this)
            throw new InvalidDataException($"head {Generation} cannot be written: it would be refused when it is read");
    }

    /// <summary>Reads a head of a VDI; null when it is none, or that of another VDI.</summary>
    public static VdiHead? TryRead(ReadOnlySpan<byte> block, Guid vdi)
    {
        FieldReader fields = new(block);
        if (fields.ReadUInt64() != Magic || !CheckedBlock.IsValid(block)) return null;
        VdiHead head = new(
            fields.ReadUInt64(), fields.ReadUInt64(), VdiVersion.Read(ref fields), fields.ReadUInt64(),
            new MapEntry(new BlockAddress(fields.ReadUInt64()), fields.ReadUInt32()), (int)fields.ReadUInt32(),
            fields.ReadText(OriginLength));
        bool isOfVdi = fields.ReadGuid() == vdi;
        head = head with { IsUnfinished = fields.ReadUInt32() != 0 };
        return isOfVdi && head.SnapshotCount is >= 0 and <= VdiFormat.MaxSnapshots
            && head.Content.FindFault() is null
            ? head
            : null;
    }
}
