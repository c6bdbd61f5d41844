using System.Text.Json;
using Microsoft.Extensions.Logging;
using Ublkback.Block;
using Ublkback.Linux.Sockets;
using Ublkback.XenStore;

namespace Ublkback.Control;

/// <summary>
/// Answers requests on the control socket. Every message gets one reply, and no message ends the server. Any thread.
/// </summary>
internal sealed partial class ControlServer : IDisposable
{
    private const int MaxQuoted = 40; // characters of a foreign message that an error repeats

    private readonly IReadOnlyDictionary<string, ControlCommand> _commands;
    private readonly ControlServices _services;
    private readonly ILogger _logger;
    private readonly LineServer _server;

    /// <summary>Listens from now on.</summary>
    /// <param name="path">The path of the socket.</param>
    /// <param name="commands">The commands that it carries out.</param>
    /// <param name="services">The parts of the daemon that answer.</param>
    /// <param name="logger">Takes failures that are bugs.</param>
    public ControlServer(
        string path, IReadOnlyList<ControlCommand> commands, ControlServices services, ILogger logger)
    {
        _commands = commands.ToDictionary(command => command.Name, StringComparer.Ordinal);
        _services = services;
        _logger = logger;
        _server = new LineServer(
            path, AnswerAsync, failure => Refuse($"{failure.Message}: send one JSON object and a newline"));
    }

    /// <inheritdoc/>
    public void Dispose() => _server.Dispose();

    private async Task<byte[]> AnswerAsync(byte[] message)
    {
        string? name = null;
        try
        {
            using JsonDocument document = JsonDocument.Parse(message);
            ControlCommand command = Find(document.RootElement);
            name = command.Name;
            return await command.AnswerAsync(document.RootElement, _services).ConfigureAwait(false);
        }
        catch (JsonException failure) when (name is not null)
        {
            string field = failure.Path is null or "$" ? "a field" : $"the field {failure.Path}";
            return Refuse($"{field} of '{name}' is unknown, missing, or of the wrong type: see docs/CONTROL.md");
        }
        catch (Exception failure) when (name is null && failure is (JsonException or InvalidOperationException))
        {
            // The second is a string with half a surrogate pair.
            return Refuse("the message is not JSON: send one JSON object and a newline");
        }
        catch (Exception failure) when (failure is UserException or XenStoreException)
        {
            return Refuse(failure.Message);
        }
        catch (Exception failure)
        {
            Failed(_logger, name ?? "a request", failure);
            return Refuse($"the daemon failed to carry out '{name}' ({failure.GetType().Name}): its log says more");
        }
    }

    private ControlCommand Find(JsonElement message)
    {
        if (message.ValueKind != JsonValueKind.Object)
            throw new RefusedRequestException(
                "the message is not a JSON object", "send one such as {\"version\":1,\"command\":\"list\"}");
        string version = message.TryGetProperty("version", out JsonElement given) ? Quote(given) : "0 (none is given)";
        if (version != $"{ControlProtocol.Version}")
            throw new RefusedRequestException(
                $"the request has version {version} of the control protocol and this daemon speaks version "
                + $"{ControlProtocol.Version}", ControlProtocol.Remedy);
        if (!message.TryGetProperty("command", out JsonElement name) || name.ValueKind != JsonValueKind.String)
            throw new RefusedRequestException($"the request has no command: this daemon knows {Names}");
        return _commands.TryGetValue(name.GetString()!, out ControlCommand? command)
            ? command
            : throw new RefusedRequestException(
                $"unknown command {Quote(name)} (the request has version {version} of the control protocol, this "
                + $"daemon version {ControlProtocol.Version}, and it knows {Names})", ControlProtocol.Remedy);
    }

    private string Names => string.Join(", ", _commands.Keys);

    private static string Quote(JsonElement element)
    {
        string text = element.GetRawText();
        return text.Length <= MaxQuoted ? text : $"{text[..MaxQuoted]}…";
    }

    private static byte[] Refuse(string error) =>
        JsonSerializer.SerializeToUtf8Bytes(new ErrorReply(error), ReplyJson.Default.ErrorReply);

    [LoggerMessage(Level = LogLevel.Error, Message = "control socket: {Command} failed")]
    private static partial void Failed(ILogger logger, string command, Exception failure);
}
