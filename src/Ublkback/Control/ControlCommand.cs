using System.CommandLine;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Ublkback.Control;

/// <summary>A command that the daemon carries out.</summary>
/// <param name="name">Its name in requests.</param>
internal abstract class ControlCommand(string name)
{
    /// <summary>The name in requests.</summary>
    public string Name { get; } = name;

    /// <summary>Creates the command line that asks for it; null when users do not ask for it directly.</summary>
    public Func<Command>? CommandLine { get; init; }

    /// <summary>Carries out a request and returns the reply as JSON. In the daemon.</summary>
    /// <exception cref="JsonException">A field is unknown, missing, or has the wrong type.</exception>
    /// <exception cref="Ublkback.Block.UserException">It cannot be carried out; the message says why.</exception>
    public abstract Task<byte[]> AnswerAsync(JsonElement request, ControlServices services);
}

/// <summary>A command with the types of its request and reply, and its handler.</summary>
/// <param name="name">Its name in requests.</param>
/// <param name="requests">How its requests are written and read.</param>
/// <param name="replies">How its replies are written and read.</param>
/// <param name="answer">Carries out a request, in the daemon.</param>
internal sealed class ControlCommand<TRequest, TReply>(
    string name, JsonTypeInfo<TRequest> requests, JsonTypeInfo<TReply> replies,
    Func<TRequest, ControlServices, Task<TReply>> answer) : ControlCommand(name)
    where TRequest : ControlRequest
    where TReply : ControlReply
{
    public JsonTypeInfo<TRequest> Requests { get; } = requests;

    public JsonTypeInfo<TReply> Replies { get; } = replies;

    public override async Task<byte[]> AnswerAsync(JsonElement request, ControlServices services)
    {
        TRequest read = request.Deserialize(Requests) ?? throw new JsonException();
        return JsonSerializer.SerializeToUtf8Bytes(await answer(read, services).ConfigureAwait(false), Replies);
    }
}
