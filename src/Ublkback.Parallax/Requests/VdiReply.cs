using System.Text.Json.Serialization;

namespace Ublkback.Parallax.Requests;

/// <summary>
/// A reply of the process that holds a VDI. Commands derive their own. A program ignores fields that it does not know.
/// </summary>
internal abstract record VdiReply
{
    /// <summary>The version of the protocol.</summary>
    [JsonPropertyOrder(-1)]
    public int Version { get; init; } = VdiProtocol.Version;
}

/// <summary>The reply of a command that has nothing to report.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Skip)]
internal sealed record VdiDoneReply : VdiReply;
