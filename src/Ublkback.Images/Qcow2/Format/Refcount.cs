using System.Buffers.Binary;

namespace Ublkback.Images.Qcow2.Format;

/// <summary>
/// Reads and writes one reference count of 2^order bits (qcow2 specification, "Host cluster management").
/// </summary>
internal static class Refcount
{
    /// <summary>
    /// The count of a number in the bytes of a block, or of a part of it that begins with the count 0 of the numbering.
    /// </summary>
    public static ulong Get(ReadOnlySpan<byte> block, int index, int order) => order switch
    {
        < 3 => (ulong)(block[index >> (3 - order)] >> Shift(index, order)) & ((1ul << (1 << order)) - 1),
        3 => block[index],
        4 => BinaryPrimitives.ReadUInt16BigEndian(block[(index * 2)..]),
        5 => BinaryPrimitives.ReadUInt32BigEndian(block[(index * 4)..]),
        _ => BinaryPrimitives.ReadUInt64BigEndian(block[(index * 8)..]),
    };

    /// <summary>Sets the count of a number.</summary>
    public static void Set(Span<byte> block, int index, int order, ulong value)
    {
        switch (order)
        {
            case < 3:
                ref byte shared = ref block[index >> (3 - order)];
                int mask = ((1 << (1 << order)) - 1) << Shift(index, order);
                shared = (byte)((shared & ~mask) | ((int)value << Shift(index, order)));
                break;
            case 3:
                block[index] = (byte)value;
                break;
            case 4:
                BinaryPrimitives.WriteUInt16BigEndian(block[(index * 2)..], (ushort)value);
                break;
            case 5:
                BinaryPrimitives.WriteUInt32BigEndian(block[(index * 4)..], (uint)value);
                break;
            default:
                BinaryPrimitives.WriteUInt64BigEndian(block[(index * 8)..], value);
                break;
        }
    }

    // The first of several in a byte has the lowest bits.
    private static int Shift(int index, int order) => (index & ((1 << (3 - order)) - 1)) << order;
}
