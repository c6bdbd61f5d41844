using System.Buffers;
using System.IO.Pipelines;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Ublkback.Linux.Sockets;

/// <summary>Reads and writes one message of a local socket: JSON and a newline.</summary>
public static class JsonLine
{
    private const int MaxLength = 16 << 20; // a longer line is no message

    /// <summary>Reads one.</summary>
    /// <exception cref="InvalidDataException">It is no message.</exception>
    public static async Task<T> ReadAsync<T>(PipeReader reader, JsonTypeInfo<T> type)
    {
        ArgumentNullException.ThrowIfNull(reader);
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

    /// <summary>Writes one.</summary>
    public static async Task WriteAsync<T>(PipeWriter writer, T message, JsonTypeInfo<T> type)
    {
        ArgumentNullException.ThrowIfNull(writer);
        await writer.WriteAsync(JsonSerializer.SerializeToUtf8Bytes(message, type)).ConfigureAwait(false);
        await writer.WriteAsync("\n"u8.ToArray()).ConfigureAwait(false);
    }
}
