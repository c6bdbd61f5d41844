using System.Text.Json.Serialization;

namespace Ublkback.Control;

/// <summary>A request to the daemon. Each command derives its own, which has just its fields.</summary>
/// <param name="Command">The command's name.</param>
internal abstract record ControlRequest([property: JsonPropertyOrder(-1)] string Command)
{
    /// <summary>The version of the protocol.</summary>
    [JsonPropertyOrder(-2)]
    public int Version { get; init; } = ControlProtocol.Version;
}
