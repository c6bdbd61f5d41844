using Ublkback.Block;

namespace Ublkback.Parallax.Format;

/// <summary>The first block of a VDI's file, which never changes. It says which VDI this is.</summary>
/// <param name="Store">The store it belongs to.</param>
/// <param name="Vdi">Its number in the store.</param>
/// <param name="Id">Its own identity, which no other VDI has anywhere.</param>
/// <param name="CreatedMs">When it was created, in milliseconds since 1970.</param>
/// <param name="Name">The name that it was created with.</param>
internal sealed record VdiSuperblock(Guid Store, uint Vdi, Guid Id, long CreatedMs, string Name)
{
    private const ulong Magic = 0x3149_4456_4B4C_4255; // "UBLKVDI1"

    public byte[] ToBlock()
    {
        byte[] block = new byte[VdiFormat.BlockSize];
        FieldWriter fields = new(block);
        fields.Write(Magic);
        fields.Write(VdiFormat.Version);
        fields.Write(Vdi);
        fields.Write(Store);
        fields.Write(Id);
        fields.Write(CreatedMs);
        fields.Write(Name, VdiName.FieldLength);
        CheckedBlock.Seal(block);
        return block;
    }

    /// <summary>Reads it; null if it is not a superblock, is damaged, or has another version.</summary>
    public static VdiSuperblock? TryRead(ReadOnlySpan<byte> block)
    {
        FieldReader fields = new(block);
        if (fields.ReadUInt64() != Magic || fields.ReadUInt32() != VdiFormat.Version || !CheckedBlock.IsValid(block))
            return null;
        uint vdi = fields.ReadUInt32();
        return new VdiSuperblock(
            fields.ReadGuid(), vdi, fields.ReadGuid(), fields.ReadInt64(), fields.ReadText(VdiName.FieldLength));
    }

    /// <summary>Returns the error that says why <see cref="TryRead"/> refused both blocks.</summary>
    public static TargetException Explain(ReadOnlySpan<byte> block, string path)
    {
        FieldReader fields = new(block);
        if (fields.ReadUInt64() == Magic && CheckedBlock.IsValid(block))
            return VdiFormat.ExplainVersion(fields.ReadUInt32(), path);
        return new TargetException(
            $"{path} is not a VDI, or its superblock and the copy of it are damaged", "restore it from a backup");
    }
}
