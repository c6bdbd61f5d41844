using System.Text.Json.Serialization;
using Ublkback.Block;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Requests;

namespace Ublkback.Parallax.Handlers;

/// <summary>Deletes a snapshot.</summary>
/// <param name="Snapshot">The name of the snapshot.</param>
internal sealed record DeleteRequest(string Snapshot) : VdiRequest("delete");


/// <summary>Carries out <c>delete</c>.</summary>
internal static class DeleteHandler
{
    public static readonly VdiHandler<DeleteRequest, VdiDoneReply> Instance = new(
        "delete", DeleteJson.Default.DeleteRequest, DeleteJson.Default.VdiDoneReply,
        RunAsync, "'ublkback vdi snapshots NAME' shows whether the snapshot is still there");

    private static async Task<VdiDoneReply> RunAsync(DeleteRequest request, VdiHolder holder)
    {
        // Nobody clones it meanwhile, and nobody opens it. The locks may block, so not on the VDI's worker.
        IDisposable structure = await Task.Run(holder.Store.LockStructure);
        IDisposable? alone = null;
        try
        {
            VdiSnapshot snapshot = holder.FindSnapshot(request.Snapshot);
            uint vdi = holder.Image.Parts.Superblock.Vdi;
            alone = await Task.Run(() => holder.Store.TryForbidPins(vdi, snapshot.Id))
                ?? throw new TargetException($"the snapshot {snapshot.Name} is in use", "detach it first");
            VdiHolder.Check(
                await holder.Image.Parts.Control.DeleteAsync(snapshot.Id), "cannot delete the snapshot");
            // So that a guest on full storage gets the space, though nobody opens this VDI.
            if (!holder.IsInUse) await holder.Image.Parts.Checkpointer.SettleAsync();
            return new VdiDoneReply();
        }
        finally
        {
            await Task.Run(() =>
            {
                alone?.Dispose();
                structure.Dispose();
            });
        }
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
