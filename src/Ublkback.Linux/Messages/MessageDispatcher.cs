using System.Text.Json;
using Ublkback.Block;
using Ublkback.Linux.Sockets;

namespace Ublkback.Linux.Messages;

/// <summary>
/// Finds the handler of each request. Every message gets one reply, and none causes an exception. Any thread.
/// </summary>
/// <param name="protocol">The protocol of the messages.</param>
/// <param name="handlers">
/// The commands with their handlers, which return the reply as JSON. A <see cref="JsonException"/> of one refuses the
/// request's fields, a <see cref="UserException"/> is the error that is replied, and an
/// <see cref="OperationCanceledException"/> says that the server ends, and that the request can be sent again.
/// </param>
/// <param name="onBug">Takes the command and any other exception of its handler.</param>
public sealed class MessageDispatcher(
    MessageProtocol protocol, IReadOnlyDictionary<string, Func<JsonElement, Task<byte[]>>> handlers,
    Action<string, Exception> onBug)
{
    private readonly string[] _commands = [.. handlers.Keys];

    /// <summary>Returns the reply to a request.</summary>
    public async Task<byte[]> AnswerAsync(byte[] message)
    {
        ArgumentNullException.ThrowIfNull(message);
        if (message.Length > protocol.MaxRequestLength)
            return RefuseIncomplete(Line.DescribeTooLong(protocol.MaxRequestLength));
        string? command = null;
        try
        {
            using JsonDocument document = JsonDocument.Parse(message);
            command = protocol.ReadCommand(document.RootElement, _commands);
            return await handlers[command](document.RootElement).ConfigureAwait(false);
        }
        catch (JsonException failure) when (command is not null)
        {
            string field = failure.Path is null or "$" ? "a field" : $"the field {failure.Path}";
            return protocol.Refuse(
                $"{field} of '{command}' is unknown, missing, or of the wrong type: see {protocol.Page}");
        }
        catch (Exception failure) when (command is null && failure is (JsonException or InvalidOperationException))
        {
            // The second is a string with half a surrogate pair.
            return RefuseIncomplete("the message is not JSON");
        }
        catch (OperationCanceledException)
        {
            return protocol.Postpone();
        }
        catch (UserException failure)
        {
            return protocol.Refuse(failure.Message);
        }
        catch (Exception failure)
        {
            onBug(command ?? "a request", failure);
            return protocol.Refuse(
                $"{protocol.Server} failed to carry out '{command}' ({failure.GetType().Name}): its log says more");
        }
    }

    /// <summary>Listens on a local socket, in place of an earlier one, until the result is disposed.</summary>
    public LineServer Listen(string path) =>
        new(
            path, protocol.MaxRequestLength, AnswerAsync, failure => RefuseIncomplete(failure.Message),
            protocol.Postpone());

    private byte[] RefuseIncomplete(string problem) =>
        protocol.Refuse($"{problem}: send one JSON object and a newline");
}
