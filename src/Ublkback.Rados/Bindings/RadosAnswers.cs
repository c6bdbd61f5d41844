using System.Buffers.Binary;

namespace Ublkback.Rados.Bindings;

/// <summary>
/// What those who watch an object answered, as <c>rados_notify2</c> gives it: counted lists, little-endian
/// (librados.h).
/// </summary>
internal static class RadosAnswers
{
    private const int IdBytes = 16; // a client, and its watch

    /// <summary>Reads it; gives the answers that are not empty, and how many did not answer.</summary>
    public static (IReadOnlyList<byte[]> Answers, int Silent) Read(ReadOnlySpan<byte> reply)
    {
        List<byte[]> answers = [];
        if (reply.Length == 0) return (answers, 0);
        int count = Take(ref reply);
        for (int i = 0; i < count; i++)
        {
            reply = reply[IdBytes..];
            int length = Take(ref reply);
            if (length > 0) answers.Add(reply[..length].ToArray());
            reply = reply[length..];
        }

        return (answers, Take(ref reply));
    }

    private static int Take(ref ReadOnlySpan<byte> from)
    {
        int value = BinaryPrimitives.ReadInt32LittleEndian(from);
        from = from[sizeof(int)..];
        return value;
    }
}
