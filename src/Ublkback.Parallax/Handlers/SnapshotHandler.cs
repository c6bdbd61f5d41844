using System.Text.Json.Serialization;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Requests;

namespace Ublkback.Parallax.Handlers;

/// <summary>Creates a snapshot of what the VDI holds now. It is durable when the reply comes.</summary>
/// <param name="Snapshot">The name of the new snapshot.</param>
internal sealed record SnapshotRequest(string Snapshot) : VdiRequest("snapshot");


/// <summary>Carries out <c>snapshot</c>.</summary>
internal static class SnapshotHandler
{
    public static readonly VdiHandler<SnapshotRequest, VdiDoneReply> Instance = new(
        "snapshot", SnapshotJson.Default.SnapshotRequest, SnapshotJson.Default.VdiDoneReply,
        RunAsync, "'ublkback vdi snapshots NAME' shows whether the snapshot is there");

    private static async Task<VdiDoneReply> RunAsync(SnapshotRequest request, VdiHolder holder)
    {
        VdiHolder.Check(
            await holder.Image.Parts.Control.SnapshotAsync(VdiName.Check(request.Snapshot)),
            "cannot create the snapshot");
        return new VdiDoneReply();
    }
}

/// <summary>How requests and replies are written and read.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(SnapshotRequest))]
[JsonSerializable(typeof(VdiDoneReply))]
internal sealed partial class SnapshotJson : JsonSerializerContext;
