using System.Text.Json.Serialization;
using Ublkback.Parallax.Collect;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Requests;

namespace Ublkback.Parallax.Handlers;

/// <summary>Frees the blocks of the VDI that neither it nor any snapshot or clone needs.</summary>
internal sealed record CollectRequest() : VdiRequest("collect");

/// <summary>The blocks were freed.</summary>
/// <param name="FreedBytes">The bytes that were freed.</param>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Skip)]
internal sealed record CollectReply(long FreedBytes) : VdiReply;

/// <summary>Carries out <c>collect</c>.</summary>
internal static class CollectHandler
{
    public static readonly VdiHandler<CollectRequest, CollectReply> Instance = new(
        "collect", CollectJson.Default.CollectRequest, CollectJson.Default.CollectReply, RunAsync);

    private static async Task<CollectReply> RunAsync(CollectRequest request, VdiHolder holder)
    {
        Collector collector = new(holder.Store, holder.Warn) { Patience = Collector.CommandPatience };
        await collector.RunAsync([holder.Image], withUnnamed: false);
        return new CollectReply(collector.Freed * VdiFormat.BlockSize);
    }
}

/// <summary>How requests and replies are written and read.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(CollectRequest))]
[JsonSerializable(typeof(CollectReply))]
internal sealed partial class CollectJson : JsonSerializerContext;
