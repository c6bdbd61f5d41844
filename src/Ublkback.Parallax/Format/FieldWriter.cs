using System.Buffers.Binary;
using System.Text;

namespace Ublkback.Parallax.Format;

/// <summary>Writes fields one after the other.</summary>
internal ref struct FieldWriter(Span<byte> target)
{
    private Span<byte> _rest = target;

    public void Write(uint value) => BinaryPrimitives.WriteUInt32LittleEndian(Take(sizeof(uint)), value);

    public void Write(ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(Take(sizeof(ulong)), value);

    public void Write(long value) => Write((ulong)value);

    public void Write(Guid value) => value.TryWriteBytes(Take(16));

    /// <summary>Writes a short text into a field of a length, of which the first byte says how much is used.</summary>
    public void Write(string text, int fieldLength)
    {
        Span<byte> field = Take(fieldLength);
        field.Clear();
        field[0] = (byte)Encoding.UTF8.GetBytes(text, field[1..]);
    }

    private Span<byte> Take(int length)
    {
        Span<byte> taken = _rest[..length];
        _rest = _rest[length..];
        return taken;
    }
}
