using System.Text.Json.Serialization;

namespace Ublkback.Parallax.Requests;

/// <summary>What a command asks of who has a VDI open.</summary>
/// <param name="Command"><c>snapshot</c>, <c>snapshots</c>, <c>delete</c>, <c>rollback</c>, <c>resize</c>,
/// <c>collect</c> or <c>compact</c>.</param>
/// <param name="Snapshot">For snapshot, delete and rollback: its name.</param>
/// <param name="SizeBytes">For resize: the size that the disk is to have; for rollback: the size that it must not go
/// below.</param>
internal sealed record VdiRequest(string Command, string? Snapshot = null, long SizeBytes = 0);

/// <summary>What is answered.</summary>
/// <param name="Error">Why it could not be done; null when it could.</param>
/// <param name="Snapshots">For snapshots: the entries of the table.</param>
/// <param name="Blocks">For collect: blocks that were freed; for compact: that were written again.</param>
/// <param name="SizeBytes">The size of the disk.</param>
/// <param name="Snapshot">For rollback: the name of the snapshot that has what the disk held before.</param>
internal sealed record VdiReply(
    string? Error, IReadOnlyList<byte[]>? Snapshots = null, long Blocks = 0, long SizeBytes = 0,
    string? Snapshot = null);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(VdiRequest))]
[JsonSerializable(typeof(VdiReply))]
internal sealed partial class VdiJson : JsonSerializerContext;
