using System.Buffers.Binary;
using System.Text;

namespace Ublkback.Parallax.Format;

/// <summary>Reads what a <see cref="FieldWriter"/> wrote.</summary>
internal ref struct FieldReader(ReadOnlySpan<byte> source)
{
    private ReadOnlySpan<byte> _rest = source;

    public uint ReadUInt32() => BinaryPrimitives.ReadUInt32LittleEndian(Take(sizeof(uint)));

    public ulong ReadUInt64() => BinaryPrimitives.ReadUInt64LittleEndian(Take(sizeof(ulong)));

    public long ReadInt64() => (long)ReadUInt64();

    public Guid ReadGuid() => new(Take(16));

    public void Skip(int length) => Take(length);

    public string ReadText(int fieldLength)
    {
        ReadOnlySpan<byte> field = Take(fieldLength);
        return Encoding.UTF8.GetString(field.Slice(1, Math.Min(field[0], fieldLength - 1)));
    }

    private ReadOnlySpan<byte> Take(int length)
    {
        ReadOnlySpan<byte> taken = _rest[..length];
        _rest = _rest[length..];
        return taken;
    }
}
