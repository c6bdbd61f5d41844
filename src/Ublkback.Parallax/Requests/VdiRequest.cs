using System.Text.Json.Serialization;

namespace Ublkback.Parallax.Requests;

/// <summary>
/// A request to the process that holds a VDI open for writing. Each command derives its own, which has just its fields.
/// </summary>
/// <param name="Command">The command's name.</param>
internal abstract record VdiRequest([property: JsonPropertyOrder(-1)] string Command)
{
    /// <summary>The version of the protocol.</summary>
    [JsonPropertyOrder(-2)]
    public int Version { get; init; } = VdiProtocol.Version;
}
