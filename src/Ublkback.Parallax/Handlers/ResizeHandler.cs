using System.Text.Json.Serialization;
using Ublkback.Block;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Requests;

namespace Ublkback.Parallax.Handlers;

/// <summary>Changes the size of the disk. What it gains reads as zeros; what it loses is lost.</summary>
/// <param name="SizeBytes">The new size.</param>
internal sealed record ResizeRequest(long SizeBytes) : VdiRequest("resize");


/// <summary>Carries out <c>resize</c>.</summary>
internal static class ResizeHandler
{
    public static readonly VdiHandler<ResizeRequest, VdiDoneReply> Instance = new(
        "resize", ResizeJson.Default.ResizeRequest, ResizeJson.Default.VdiDoneReply,
        RunAsync, "'ublkback vdi list' shows the size");

    private static async Task<VdiDoneReply> RunAsync(ResizeRequest request, VdiHolder holder)
    {
        VdiFormat.CheckSize(request.SizeBytes);
        if (holder.IsInUse && request.SizeBytes < holder.Image.Parts.Content.Size)
            throw new TargetException(
                $"the VDI has {holder.Image.Parts.Content.Size} bytes, and cannot shrink while it is in use",
                "detach it first");
        await holder.Image.ResizeAsync(request.SizeBytes);
        return new VdiDoneReply();
    }
}

/// <summary>How requests and replies are written and read.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(ResizeRequest))]
[JsonSerializable(typeof(VdiDoneReply))]
internal sealed partial class ResizeJson : JsonSerializerContext;
