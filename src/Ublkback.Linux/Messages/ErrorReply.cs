using System.Text.Json.Serialization;

namespace Ublkback.Linux.Messages;

/// <summary>The reply in place of any other, when a request was not carried out.</summary>
/// <param name="Version">The version of the protocol.</param>
/// <param name="Error">One sentence: what was wrong, and how to fix it.</param>
/// <param name="Retry">True if the same request can succeed a moment later; null otherwise.</param>
internal sealed record ErrorReply(
    int Version, string Error,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] bool? Retry = null);

/// <summary>How errors are written.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(ErrorReply))]
internal sealed partial class ErrorJson : JsonSerializerContext;
