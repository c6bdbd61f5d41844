using Ublkback.Block;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Stores;

/// <summary>The block that says that this is a store of VDIs, and which.</summary>
internal static class StoreBlock
{
    private const ulong Magic = 0x4552_4F54_534B_4255; // "UBKSTORE"

    /// <summary>Makes one for a new store.</summary>
    public static byte[] Make()
    {
        byte[] block = new byte[VdiFormat.BlockSize];
        FieldWriter fields = new(block);
        fields.Write(Magic);
        fields.Write(VdiFormat.Version);
        fields.Write(Guid.NewGuid());
        CheckedBlock.Seal(block);
        return block;
    }

    /// <summary>Reads the identity of a store.</summary>
    /// <param name="block">The block.</param>
    /// <param name="where">What it was read from.</param>
    /// <exception cref="TargetException">It is none, or damaged, or newer than this program.</exception>
    public static Guid Read(ReadOnlySpan<byte> block, string where)
    {
        FieldReader fields = new(block);
        if (fields.ReadUInt64() != Magic)
            throw new TargetException($"{where} does not say that this is a store of VDIs");
        uint version = fields.ReadUInt32();
        if (version != VdiFormat.Version)
            throw new TargetException(
                $"{where} has version {version} of the format, and this program knows {VdiFormat.Version}",
                "use a newer one");
        return CheckedBlock.IsValid(block)
            ? fields.ReadGuid()
            : throw new TargetException($"{where} is damaged: its checksum is wrong");
    }
}
