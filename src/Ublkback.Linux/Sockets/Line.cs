using System.Buffers;
using System.IO.Pipelines;

namespace Ublkback.Linux.Sockets;

/// <summary>Reads and writes one message of a local socket: a line, whose last byte is a newline.</summary>
internal static class Line
{
    /// <summary>The longest message, in bytes.</summary>
    public const int MaxLength = 16 << 20;

    /// <summary>Reads one message and returns it without its newline.</summary>
    /// <exception cref="InvalidDataException">The message is longer than allowed, or has no newline.</exception>
    public static async Task<byte[]> ReadAsync(PipeReader reader)
    {
        while (true)
        {
            ReadResult result = await reader.ReadAsync().ConfigureAwait(false);
            ReadOnlySequence<byte> buffer = result.Buffer;
            if (buffer.PositionOf((byte)'\n') is SequencePosition end)
            {
                byte[] line = buffer.Slice(0, end).ToArray();
                reader.AdvanceTo(buffer.GetPosition(1, end));
                return line;
            }

            if (buffer.Length > MaxLength)
                throw new InvalidDataException($"the message is longer than {MaxLength >> 20} MiB");
            if (result.IsCompleted)
                throw new InvalidDataException(
                    buffer.IsEmpty ? "the connection closed before a message came" : "the message has no newline");
            reader.AdvanceTo(buffer.Start, buffer.End);
        }
    }

    /// <summary>Writes one message and its newline.</summary>
    public static async Task WriteAsync(PipeWriter writer, byte[] message)
    {
        await writer.WriteAsync(message).ConfigureAwait(false);
        await writer.WriteAsync("\n"u8.ToArray()).ConfigureAwait(false);
    }
}
