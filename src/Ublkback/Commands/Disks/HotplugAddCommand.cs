using System.Text.Json.Serialization;
using Ublkback.Control;
using Ublkback.Hosting;

namespace Ublkback.Commands.Disks;

/// <summary>Checks the target of a device and tells the toolstack, for the hotplug script.</summary>
/// <param name="XenbusPath">The script's XENBUS_PATH, such as <c>backend/vbd/1/51712</c>.</param>
internal sealed record HotplugAddRequest(string XenbusPath) : ControlRequest("hotplug-add");

/// <summary>Carries out <c>hotplug-add</c>.</summary>
internal static class HotplugAddCommand
{
    public static readonly ControlCommand<HotplugAddRequest, DoneReply> Control = new(
        "hotplug-add", HotplugAddJson.Default.HotplugAddRequest, ReplyJson.Default.DoneReply, AnswerAsync);

    private static async Task<DoneReply> AnswerAsync(HotplugAddRequest request, ControlServices services) =>
        await services.Hotplug.AddAsync(request.XenbusPath).ConfigureAwait(false) is string error
            ? throw new CommandException(error)
            : new DoneReply();
}

/// <summary>How requests are written and read.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(HotplugAddRequest))]
internal sealed partial class HotplugAddJson : JsonSerializerContext;
