using System.Buffers;
using System.IO.Pipelines;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Ublkback.Control;

/// <summary>Reads and writes one message of the control socket: JSON and a newline.</summary>
internal static class ControlLine
{
    private const int MaxLength = 16 << 20; // thousands of vbds; a longer line is no message

    public static async Task<T> ReadAsync<T>(PipeReader reader, JsonTypeInfo<T> type)
    {
        while (true)
        {
            ReadResult result = await reader.ReadAsync().ConfigureAwait(false);
            ReadOnlySequence<byte> buffer = result.Buffer;
            if (buffer.PositionOf((byte)'\n') is SequencePosition end)
            {
                Utf8JsonReader json = new(buffer.Slice(0, end));
                T? message = JsonSerializer.Deserialize(ref json, type);
                reader.AdvanceTo(buffer.GetPosition(1, end));
                return message ?? throw new InvalidDataException("an empty message");
            }

            if (result.IsCompleted || buffer.Length > MaxLength) throw new InvalidDataException("no whole message");
            reader.AdvanceTo(buffer.Start, buffer.End);
        }
    }

    public static async Task WriteAsync<T>(PipeWriter writer, T message, JsonTypeInfo<T> type)
    {
        await writer.WriteAsync(JsonSerializer.SerializeToUtf8Bytes(message, type)).ConfigureAwait(false);
        await writer.WriteAsync("\n"u8.ToArray()).ConfigureAwait(false);
    }
}
