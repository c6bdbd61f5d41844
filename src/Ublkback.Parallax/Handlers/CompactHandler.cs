using System.Text.Json.Serialization;
using Ublkback.Block;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Requests;

namespace Ublkback.Parallax.Handlers;

/// <summary>Rewrites blocks, so that those that are adjacent on the disk are adjacent in the file.</summary>
internal sealed record CompactRequest() : VdiRequest("compact");

/// <summary>The VDI was compacted.</summary>
/// <param name="WrittenBytes">The bytes that were rewritten.</param>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Skip)]
internal sealed record CompactReply(long WrittenBytes) : VdiReply;

/// <summary>Carries out <c>compact</c>.</summary>
internal static class CompactHandler
{
    public static readonly VdiHandler<CompactRequest, CompactReply> Instance = new(
        "compact", CompactJson.Default.CompactRequest, CompactJson.Default.CompactReply,
        RunAsync, "run it again, which does no harm");

    private static async Task<CompactReply> RunAsync(CompactRequest request, VdiHolder holder)
    {
        (BlockStatus status, long written) =
            await new Compactor(holder.Image.Parts, holder.Image.Closing).RunAsync();
        VdiHolder.Check(status, "cannot compact the VDI");
        return new CompactReply(written * VdiFormat.BlockSize);
    }
}

/// <summary>How requests and replies are written and read.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(CompactRequest))]
[JsonSerializable(typeof(CompactReply))]
internal sealed partial class CompactJson : JsonSerializerContext;
