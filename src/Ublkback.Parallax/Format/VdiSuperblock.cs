using Ublkback.Block;

namespace Ublkback.Parallax.Format;

/// <summary>The first block of a VDI's file, which never changes: whose it is.</summary>
/// <param name="Store">The store it belongs to.</param>
/// <param name="Vdi">Its number in the store.</param>
/// <param name="Id">Its own identity, which no other VDI has anywhere.</param>
/// <param name="CreatedMs">When it was made, in milliseconds since 1970.</param>
internal sealed record VdiSuperblock(Guid Store, uint Vdi, Guid Id, long CreatedMs)
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
        CheckedBlock.Seal(block);
        return block;
    }

    /// <summary>Reads it.</summary>
    /// <exception cref="TargetException">It is none, is broken, or of another version.</exception>
    public static VdiSuperblock Read(ReadOnlySpan<byte> block, string path)
    {
        FieldReader fields = new(block);
        if (fields.ReadUInt64() != Magic) throw new TargetException($"{path} is no VDI");
        uint version = fields.ReadUInt32();
        if (version != VdiFormat.Version)
            throw new TargetException(
                $"{path} has version {version} of the format, and this program knows {VdiFormat.Version}",
                "use a newer one");
        if (!CheckedBlock.IsValid(block))
            throw new TargetException($"the first block of {path} is damaged: its checksum is wrong");
        uint vdi = fields.ReadUInt32();
        return new VdiSuperblock(fields.ReadGuid(), vdi, fields.ReadGuid(), fields.ReadInt64());
    }
}
