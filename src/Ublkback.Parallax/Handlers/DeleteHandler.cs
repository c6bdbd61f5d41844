using System.Text.Json.Serialization;
using Ublkback.Parallax.Requests;

namespace Ublkback.Parallax.Handlers;

/// <summary>Deletes a snapshot.</summary>
/// <param name="Snapshot">The name of the snapshot.</param>
internal sealed record DeleteRequest(string Snapshot) : VdiRequest("delete");


/// <summary>Carries out <c>delete</c>.</summary>
internal static class DeleteHandler
{
    public static readonly VdiHandler<DeleteRequest, VdiDoneReply> Instance = new(
        "delete", DeleteJson.Default.DeleteRequest, DeleteJson.Default.VdiDoneReply, RunAsync);

    private static async Task<VdiDoneReply> RunAsync(DeleteRequest request, VdiHolder holder)
    {
        VdiHolder.Check(
            await holder.Image.Parts.Control.DeleteAsync(holder.FindSnapshot(request.Snapshot).Id),
            "cannot delete the snapshot");
        return new VdiDoneReply();
    }
}

/// <summary>How requests and replies are written and read.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(DeleteRequest))]
[JsonSerializable(typeof(VdiDoneReply))]
internal sealed partial class DeleteJson : JsonSerializerContext;
