using System.Text.Json.Serialization;
using Ublkback.Block;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Map;
using Ublkback.Parallax.Requests;

namespace Ublkback.Parallax.Handlers;

/// <summary>Gives the VDI the content of one of its snapshots.</summary>
/// <param name="Snapshot">The name of the snapshot.</param>
/// <param name="MinSizeBytes">The size below which the disk must not shrink; 0 allows any.</param>
internal sealed record RollbackRequest(string Snapshot, long MinSizeBytes = 0) : VdiRequest("rollback");

/// <summary>The VDI was rolled back.</summary>
/// <param name="Kept">The name of a new snapshot, which keeps what the disk held before.</param>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Skip)]
internal sealed record RollbackReply(string Kept) : VdiReply;

/// <summary>Carries out <c>rollback</c>.</summary>
internal static class RollbackHandler
{
    public static readonly VdiHandler<RollbackRequest, RollbackReply> Instance = new(
        "rollback", RollbackJson.Default.RollbackRequest, RollbackJson.Default.RollbackReply, RunAsync);

    private static async Task<RollbackReply> RunAsync(RollbackRequest request, VdiHolder holder)
    {
        VdiSnapshot target = holder.FindSnapshot(request.Snapshot);
        try
        {
            VdiContent then = await Task.Run(() => holder.Image.Parts.ReadContent(
                target.Content, vdi => holder.Store.OpenOther(vdi, holder.Warn)));
            if (then.Size < request.MinSizeBytes)
                throw new TargetException(
                    $"the snapshot {target.Name} has {then.Size} bytes and the disk {request.MinSizeBytes}, which "
                    + "cannot shrink while it is in use",
                    "detach it first");
            return new RollbackReply(await holder.Image.RollBackAsync(then));
        }
        catch (Exception failure) when (failure is InvalidDataException or IOException)
        {
            throw new TargetException(
                $"the snapshot {target.Name} cannot be read: {failure.Message}", "see 'ublkback vdi fsck'", failure);
        }
    }
}

/// <summary>How requests and replies are written and read.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(RollbackRequest))]
[JsonSerializable(typeof(RollbackReply))]
internal sealed partial class RollbackJson : JsonSerializerContext;
