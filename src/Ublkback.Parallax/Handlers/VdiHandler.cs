using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Ublkback.Block;
using Ublkback.Parallax.Requests;

namespace Ublkback.Parallax.Handlers;

/// <summary>Carries out one command on a VDI that this process holds open for writing. Any thread.</summary>
/// <param name="command">Its name in requests.</param>
/// <param name="look">As <see cref="Look"/>.</param>
internal abstract class VdiHandler(string command, string? look)
{
    /// <summary>The command's name in requests.</summary>
    public string Command { get; } = command;

    /// <summary>
    /// Tells people how to see whether a request was carried out; null if it can be repeated without harm.
    /// </summary>
    public string? Look { get; } = look;

    /// <summary>Carries out a request and returns the reply as JSON.</summary>
    /// <exception cref="JsonException">A field is unknown, missing, or has the wrong type.</exception>
    /// <exception cref="TargetException">It cannot be carried out; the message says why.</exception>
    public abstract Task<byte[]> AnswerAsync(JsonElement request, VdiHolder holder);
}

/// <summary>A command with the types of its request and reply.</summary>
/// <param name="command">Its name in requests.</param>
/// <param name="requests">How its requests are written and read.</param>
/// <param name="replies">How its replies are written and read.</param>
/// <param name="run">Carries out a request, on the VDI's worker.</param>
/// <param name="look">As <see cref="VdiHandler.Look"/>.</param>
internal sealed class VdiHandler<TRequest, TReply>(
    string command, JsonTypeInfo<TRequest> requests, JsonTypeInfo<TReply> replies,
    Func<TRequest, VdiHolder, Task<TReply>> run, string? look = null) : VdiHandler(command, look)
    where TRequest : VdiRequest
    where TReply : VdiReply
{
    public JsonTypeInfo<TRequest> Requests { get; } = requests;

    public JsonTypeInfo<TReply> Replies { get; } = replies;

    /// <summary>Carries out a request in the process that holds the VDI.</summary>
    /// <exception cref="TargetException">It cannot be carried out; the message says why.</exception>
    public Task<TReply> RunAsync(TRequest request, VdiHolder holder) => holder.RunAsync(() => run(request, holder));

    public override async Task<byte[]> AnswerAsync(JsonElement request, VdiHolder holder)
    {
        TRequest read = request.Deserialize(Requests) ?? throw new JsonException();
        return JsonSerializer.SerializeToUtf8Bytes(await RunAsync(read, holder).ConfigureAwait(false), Replies);
    }
}
