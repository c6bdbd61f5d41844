using System.IO.Pipelines;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Ublkback.Linux.Sockets;

/// <summary>Reads and writes one message of a local socket: JSON and a newline.</summary>
internal static class JsonLine
{
    /// <summary>Reads one message.</summary>
    /// <exception cref="InvalidDataException">The message is incomplete, too long, or <c>null</c>.</exception>
    /// <exception cref="JsonException">The message is not JSON of the type.</exception>
    public static async Task<T> ReadAsync<T>(PipeReader reader, JsonTypeInfo<T> type)
    {
        ArgumentNullException.ThrowIfNull(reader);
        return Parse(await Line.ReadAsync(reader).ConfigureAwait(false), type);
    }

    /// <summary>Writes one message.</summary>
    public static Task WriteAsync<T>(PipeWriter writer, T message, JsonTypeInfo<T> type)
    {
        ArgumentNullException.ThrowIfNull(writer);
        return Line.WriteAsync(writer, JsonSerializer.SerializeToUtf8Bytes(message, type));
    }

    /// <summary>Parses a message that was read without its newline.</summary>
    internal static T Parse<T>(byte[] line, JsonTypeInfo<T> type) =>
        JsonSerializer.Deserialize(line, type) ?? throw new InvalidDataException("an empty message");
}
