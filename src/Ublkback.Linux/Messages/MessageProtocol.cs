using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Ublkback.Linux.Messages;

/// <summary>
/// What the messages of a socket have in common: each is a JSON object with a <c>version</c>. A request has a
/// <c>command</c>, and a reply has an <c>error</c> if the request was not carried out.
/// </summary>
/// <param name="Name">The protocol's name, as in <c>the control protocol</c>.</param>
/// <param name="Version">The version that this program speaks.</param>
/// <param name="Server">The process that answers, as in <c>the daemon</c>.</param>
/// <param name="Remedy">Tells the user how to get programs of the same version.</param>
/// <param name="Page">The page of the documentation.</param>
/// <param name="MaxRequestLength">The longest request, in bytes.</param>
/// <param name="MaxReplyLength">The longest reply, in bytes.</param>
public sealed record MessageProtocol(
    string Name, int Version, string Server, string Remedy, string Page, int MaxRequestLength, int MaxReplyLength)
{
    private const int MaxQuoted = 40; // characters of a foreign message that an error repeats

    /// <summary>Returns the command of a request, which is one of <paramref name="commands"/>.</summary>
    /// <exception cref="RefusedMessageException">It has another version, or none, or an unknown command.</exception>
    public string ReadCommand(JsonElement request, IReadOnlyCollection<string> commands)
    {
        string names = string.Join(", ", commands);
        if (request.ValueKind != JsonValueKind.Object)
            throw new RefusedMessageException(
                "the message is not a JSON object",
                $"send one such as {{\"version\":{Version},\"command\":\"{commands.First()}\"}}");
        string version = request.TryGetProperty("version", out JsonElement given) ? Quote(given) : "0 (none is given)";
        if (version != $"{Version}")
            throw new RefusedMessageException(
                $"the request has version {version} of {Name} and {Server} speaks version {Version}", Remedy);
        if (!request.TryGetProperty("command", out JsonElement name) || name.ValueKind != JsonValueKind.String)
            throw new RefusedMessageException($"the request has no command: {Server} knows {names}");
        string command = name.GetString()!;
        return commands.Contains(command)
            ? command
            : throw new RefusedMessageException(
                $"unknown command {Quote(name)}: {Server} knows {names}",
                $"correct it, or if a newer program sent it, {Remedy}");
    }

    /// <summary>Reads the reply to a command. Errors of any version are accepted: they name the versions.</summary>
    /// <exception cref="RefusedMessageException">
    /// The reply has an error, another version, or an unexpected field; the message says which.
    /// </exception>
    public T ReadReply<T>(byte[] message, string command, JsonTypeInfo<T> type)
    {
        ArgumentNullException.ThrowIfNull(message);
        if (message.Length > MaxReplyLength)
            throw new RefusedMessageException($"the reply of {Server} to '{command}' is too long", Remedy);
        try
        {
            using JsonDocument document = JsonDocument.Parse(message);
            JsonElement reply = document.RootElement;
            if (reply.ValueKind != JsonValueKind.Object)
                throw new RefusedMessageException($"the reply of {Server} is not a JSON object", Remedy);
            if (reply.TryGetProperty("error", out JsonElement error) && error.ValueKind == JsonValueKind.String)
                throw new RefusedMessageException(error.GetString()!);
            string version = reply.TryGetProperty("version", out JsonElement given) ? Quote(given) : "0";
            if (version != $"{Version}")
                throw new RefusedMessageException(
                    $"{Server} speaks version {version} of {Name} and this program version {Version}, so it is "
                    + $"unknown whether '{command}' was carried out", Remedy);
            return reply.Deserialize(type) ?? throw new JsonException();
        }
        catch (Exception failure) when (failure is JsonException or InvalidOperationException)
        {
            // The second is a string with half a surrogate pair.
            string field = failure is JsonException { Path: { Length: > 1 } path } ? $" has an unexpected field {path}"
                : " is not JSON of the expected form";
            throw new RefusedMessageException($"the reply of {Server} to '{command}'{field}", Remedy, failure);
        }
    }

    /// <summary>Returns a reply in place of any other, when a request was not carried out.</summary>
    /// <param name="error">One sentence: what was wrong, and how to fix it.</param>
    public byte[] Refuse(string error) =>
        JsonSerializer.SerializeToUtf8Bytes(new ErrorReply(Version, error), ErrorJson.Default.ErrorReply);

    /// <summary>
    /// Returns the reply to a request that was not carried out because its server starts or ends. The same request can
    /// be sent again.
    /// </summary>
    public byte[] Postpone() => JsonSerializer.SerializeToUtf8Bytes(
        new ErrorReply(
            Version, $"{Server} did not carry the request out, because it is starting or ending: try again",
            Retry: true),
        ErrorJson.Default.ErrorReply);

    /// <summary>
    /// True if a reply says that the request was not carried out now, and can be sent again.
    /// </summary>
    public static bool IsPostponed(byte[] reply)
    {
        try
        {
            return JsonSerializer.Deserialize(reply, ErrorJson.Default.ErrorReply) is { Error: not null, Retry: true };
        }
        catch (JsonException)
        {
            return false; // who reads it as a reply says what it is
        }
    }

    private static string Quote(JsonElement element)
    {
        string text = element.GetRawText();
        return text.Length <= MaxQuoted ? text : $"{text[..MaxQuoted]}…";
    }
}
