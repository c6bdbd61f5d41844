using System.Text.Json.Serialization;
using Ublkback.Block;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Map;
using Ublkback.Parallax.Requests;

namespace Ublkback.Parallax.Handlers;

/// <summary>Gives the VDI the content of one of its snapshots.</summary>
/// <param name="Snapshot">The name of the snapshot.</param>
/// <param name="MinSizeBytes">The size below which the disk must not shrink; 0 allows any.</param>
/// <param name="IsLive">True if the disk may be in use. Its guest must not have it mounted.</param>
internal sealed record RollbackRequest(
    string Snapshot, long MinSizeBytes = 0,
    [property: JsonPropertyName("live"), JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    bool IsLive = false) : VdiRequest("rollback");

/// <summary>The VDI was rolled back.</summary>
/// <param name="Kept">The name of a new snapshot, which keeps what the disk held before.</param>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Skip)]
internal sealed record RollbackReply(string Kept) : VdiReply;

/// <summary>Carries out <c>rollback</c>.</summary>
internal static class RollbackHandler
{
    public static readonly VdiHandler<RollbackRequest, RollbackReply> Instance = new(
        "rollback", RollbackJson.Default.RollbackRequest, RollbackJson.Default.RollbackReply,
        RunAsync, "'ublkback vdi snapshots NAME' shows another before-rollback snapshot if it was");

    private static async Task<RollbackReply> RunAsync(RollbackRequest request, VdiHolder holder)
    {
        if (holder.IsInUse && !request.IsLive)
            throw new TargetException(
                "the VDI is in use",
                "detach it, or, when its guest has unmounted it, say --live, which is \"live\":true on the socket");
        // The snapshot is not deleted meanwhile. The lock may block, so not on the VDI's worker.
        IDisposable structure = await Task.Run(holder.Store.LockStructure);
        try
        {
            return await RunLockedAsync(request, holder);
        }
        finally
        {
            await Task.Run(structure.Dispose);
        }
    }

    private static async Task<RollbackReply> RunLockedAsync(RollbackRequest request, VdiHolder holder)
    {
        VdiSnapshot target = holder.FindSnapshot(request.Snapshot);
        // A guest does not expect its disk to become smaller.
        long minSize = Math.Max(request.MinSizeBytes, holder.IsInUse ? holder.Image.Parts.Content.Size : 0);
        try
        {
            VdiContent then = await Task.Run(() => holder.Image.Parts.ReadContent(
                target.Content, vdi => holder.Store.OpenOther(vdi, holder.Warn)));
            if (then.Size < minSize)
                throw new TargetException(
                    $"the snapshot {target.Name} has {then.Size} bytes and the disk {minSize}, which "
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
