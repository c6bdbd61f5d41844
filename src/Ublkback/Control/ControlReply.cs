using System.Text.Json.Serialization;

namespace Ublkback.Control;

/// <summary>A reply of the daemon. Commands derive their own.</summary>
internal abstract record ControlReply
{
    /// <summary>The version of the protocol.</summary>
    [JsonPropertyOrder(-1)]
    public int Version { get; init; } = ControlProtocol.Version;
}

/// <summary>The reply of a command that has nothing to report.</summary>
internal sealed record DoneReply : ControlReply;

/// <summary>The reply with the vbds that a command was carried out on.</summary>
/// <param name="Vbds">The vbds, as they are now.</param>
internal sealed record VbdsReply(IReadOnlyList<VbdReport> Vbds) : ControlReply;

/// <summary>The reply with all vbds and the daemon's own figures.</summary>
/// <param name="Vbds">All vbds.</param>
/// <param name="Process">The daemon as a process.</param>
internal sealed record DaemonReply(IReadOnlyList<VbdReport> Vbds, ProcessReport Process) : ControlReply;

/// <summary>How replies are written and read. A program ignores fields that it does not know.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(DoneReply))]
[JsonSerializable(typeof(VbdsReply))]
[JsonSerializable(typeof(DaemonReply))]
internal sealed partial class ReplyJson : JsonSerializerContext;
