using System.Text.Json.Serialization;
using Ublkback.Control;
using Ublkback.Hosting;

namespace Ublkback.Commands.Disks;

/// <summary>Waits until the image of a removed device is closed, for the hotplug script.</summary>
/// <param name="XenbusPath">The script's XENBUS_PATH, such as <c>backend/vbd/1/51712</c>.</param>
internal sealed record HotplugRemoveRequest(string XenbusPath) : ControlRequest("hotplug-remove");

/// <summary>Carries out <c>hotplug-remove</c>.</summary>
internal static class HotplugRemoveCommand
{
    public static readonly ControlCommand<HotplugRemoveRequest, DoneReply> Control = new(
        "hotplug-remove", HotplugRemoveJson.Default.HotplugRemoveRequest, ReplyJson.Default.DoneReply, AnswerAsync);

    private static async Task<DoneReply> AnswerAsync(HotplugRemoveRequest request, ControlServices services) =>
        await services.Hotplug.RemoveAsync(request.XenbusPath).ConfigureAwait(false) is string error
            ? throw new CommandException(error)
            : new DoneReply();
}

/// <summary>How requests are written and read.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(HotplugRemoveRequest))]
internal sealed partial class HotplugRemoveJson : JsonSerializerContext;
