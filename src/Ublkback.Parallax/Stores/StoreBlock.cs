using Ublkback.Block;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Stores;

/// <summary>The block that says that this is a store of VDIs, and which.</summary>
internal static class StoreBlock
{
    private const ulong Magic = 0x4552_4F54_534B_4255; // "UBKSTORE"

    /// <summary>Returns the block for the store of an identity.</summary>
    public static byte[] Make(Guid id)
    {
        byte[] block = new byte[VdiFormat.BlockSize];
        FieldWriter fields = new(block);
        fields.Write(Magic);
        fields.Write(VdiFormat.Version);
        fields.Write(id);
        CheckedBlock.Seal(block);
        return block;
    }

    /// <summary>Reads the identity of a store from its block, or from the copy of the block.</summary>
    /// <param name="block">The block.</param>
    /// <param name="copy">The copy.</param>
    /// <param name="where">What the block was read from.</param>
    /// <exception cref="TargetException">Both are damaged, or the store has another version.</exception>
    public static Guid Read(ReadOnlySpan<byte> block, ReadOnlySpan<byte> copy, string where)
    {
        if ((TryRead(block) ?? TryRead(copy)) is Guid id) return id;
        FieldReader fields = new(block);
        if (fields.ReadUInt64() == Magic && CheckedBlock.IsValid(block))
            throw VdiFormat.ExplainVersion(fields.ReadUInt32(), where);
        throw new TargetException(
            $"{where} does not say that this is a store of VDIs, or it and its copy are damaged",
            "restore it from a backup");
    }

    /// <summary>Reads the identity; null if the block is damaged, is missing, or has another version.</summary>
    public static Guid? TryRead(ReadOnlySpan<byte> block)
    {
        FieldReader fields = new(block);
        return fields.ReadUInt64() == Magic && fields.ReadUInt32() == VdiFormat.Version && CheckedBlock.IsValid(block)
            ? fields.ReadGuid()
            : null;
    }
}
