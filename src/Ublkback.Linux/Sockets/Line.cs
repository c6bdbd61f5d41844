using System.Buffers;
using System.IO.Pipelines;

namespace Ublkback.Linux.Sockets;

/// <summary>Reads and writes one message of a local socket: a line, whose last byte is a newline.</summary>
internal static class Line
{
    /// <summary>Reads one message and returns it without its newline.</summary>
    /// <param name="reader">Where the message comes from.</param>
    /// <param name="maxLength">The longest message, in bytes.</param>
    /// <param name="ending">Ends the wait for it.</param>
    /// <exception cref="InvalidDataException">The message is longer than allowed, or has no newline.</exception>
    public static async Task<byte[]> ReadAsync(
        PipeReader reader, int maxLength, CancellationToken ending = default)
    {
        while (true)
        {
            ReadResult result = await reader.ReadAsync(ending).ConfigureAwait(false);
            ReadOnlySequence<byte> buffer = result.Buffer;
            if (buffer.PositionOf((byte)'\n') is SequencePosition end)
            {
                if (buffer.Slice(0, end).Length > maxLength) break;
                byte[] line = buffer.Slice(0, end).ToArray();
                reader.AdvanceTo(buffer.GetPosition(1, end));
                return line;
            }

            if (buffer.Length > maxLength) break;
            if (result.IsCompleted)
                throw new InvalidDataException(
                    buffer.IsEmpty ? "the connection closed before a message came" : "the message has no newline");
            reader.AdvanceTo(buffer.Start, buffer.End);
        }

        throw new InvalidDataException(DescribeTooLong(maxLength));
    }

    /// <summary>Returns the sentence about a message that is longer than allowed.</summary>
    public static string DescribeTooLong(int maxLength) =>
        $"the message is longer than {(maxLength < 1 << 20 ? $"{maxLength >> 10} KiB" : $"{maxLength >> 20} MiB")}";

    /// <summary>Writes one message and its newline.</summary>
    public static async Task WriteAsync(PipeWriter writer, byte[] message)
    {
        await writer.WriteAsync(message).ConfigureAwait(false);
        await writer.WriteAsync("\n"u8.ToArray()).ConfigureAwait(false);
    }
}
