using System.Buffers;
using System.Buffers.Binary;
using System.Text;

namespace Ublkback.XenStore;

/// <summary>Writes and reads xenstore messages. Pure; any thread.</summary>
public static class XenStoreCodec
{
    private const char Escape = '\udc00'; // and a byte: alone, such a character is in no text

    /// <summary>
    /// The text of bytes of the store. They are UTF-8, as paths are; bytes that are not become characters that
    /// <see cref="Encode"/> writes as the same bytes.
    /// </summary>
    public static string Decode(ReadOnlySpan<byte> bytes)
    {
        StringBuilder text = new(bytes.Length);
        while (!bytes.IsEmpty)
        {
            bool isText = Rune.DecodeFromUtf8(bytes, out Rune rune, out int length) == OperationStatus.Done;
            if (isText) text.Append(rune.ToString());
            else foreach (byte odd in bytes[..length]) text.Append((char)(Escape | odd));
            bytes = bytes[length..];
        }

        return text.ToString();
    }

    /// <summary>The bytes of a text, as <see cref="Decode"/> reads them.</summary>
    public static byte[] Encode(string text)
    {
        ReadOnlySpan<char> rest = text;
        List<byte> bytes = new(rest.Length);
        Span<byte> encoded = stackalloc byte[4];
        while (!rest.IsEmpty)
        {
            bool isText = Rune.DecodeFromUtf16(rest, out Rune rune, out int length) == OperationStatus.Done;
            if (!isText && (rest[0] & 0xff80) == (Escape | 0x80)) bytes.Add((byte)rest[0]);
            else bytes.AddRange(encoded[..rune.EncodeToUtf8(encoded)]);
            rest = rest[length..];
        }

        return [.. bytes];
    }

    /// <summary>Appends a message to a writer.</summary>
    /// <exception cref="XenStoreException">The payload is longer than the protocol allows.</exception>
    public static void Write(
        IBufferWriter<byte> output, XenStoreMessageType type, uint requestId, uint transaction,
        ReadOnlySpan<byte> payload)
    {
        if (payload.Length > XenStoreHeader.MaxPayload)
            throw new XenStoreException(
                XenStoreError.TooBig, $"a {type} of {payload.Length} bytes (the limit is {XenStoreHeader.MaxPayload})");
        Span<byte> buffer = output.GetSpan(XenStoreHeader.Size + payload.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(buffer, (uint)type);
        BinaryPrimitives.WriteUInt32LittleEndian(buffer[4..], requestId);
        BinaryPrimitives.WriteUInt32LittleEndian(buffer[8..], transaction);
        BinaryPrimitives.WriteUInt32LittleEndian(buffer[12..], (uint)payload.Length);
        payload.CopyTo(buffer[XenStoreHeader.Size..]);
        output.Advance(XenStoreHeader.Size + payload.Length);
    }

    /// <summary>Takes one whole message from the front of a buffer, if there is one.</summary>
    /// <exception cref="InvalidDataException">The header claims a longer payload than the protocol allows.</exception>
    public static bool TryRead(ref ReadOnlySequence<byte> input, out XenStoreMessage message)
    {
        message = default;
        if (input.Length < XenStoreHeader.Size) return false;
        Span<byte> raw = stackalloc byte[XenStoreHeader.Size];
        input.Slice(0, XenStoreHeader.Size).CopyTo(raw);
        uint length = BinaryPrimitives.ReadUInt32LittleEndian(raw[12..]);
        if (length > XenStoreHeader.MaxPayload)
            throw new InvalidDataException(
                $"a xenstore message of {length} bytes (the limit is {XenStoreHeader.MaxPayload})");
        if (input.Length < XenStoreHeader.Size + length) return false;

        XenStoreHeader header = new(
            (XenStoreMessageType)BinaryPrimitives.ReadUInt32LittleEndian(raw),
            BinaryPrimitives.ReadUInt32LittleEndian(raw[4..]),
            BinaryPrimitives.ReadUInt32LittleEndian(raw[8..]),
            (int)length);
        message = new XenStoreMessage(header, input.Slice(XenStoreHeader.Size, length).ToArray());
        input = input.Slice(XenStoreHeader.Size + length);
        return true;
    }

    /// <summary>Encodes strings, each followed by a zero byte.</summary>
    public static byte[] Strings(params ReadOnlySpan<string> values)
    {
        List<byte> result = [];
        foreach (string value in values)
        {
            result.AddRange(Encode(value));
            result.Add(0);
        }

        return [.. result];
    }

    /// <summary>Decodes zero-terminated strings; the last may lack its terminator.</summary>
    public static string[] SplitStrings(ReadOnlySpan<byte> payload)
    {
        List<string> result = [];
        while (!payload.IsEmpty)
        {
            int end = payload.IndexOf((byte)0);
            if (end < 0) end = payload.Length;
            result.Add(Decode(payload[..end]));
            payload = payload[Math.Min(end + 1, payload.Length)..];
        }

        return [.. result];
    }
}
