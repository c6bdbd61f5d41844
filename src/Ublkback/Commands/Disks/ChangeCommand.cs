using System.CommandLine;
using System.Text.Json.Serialization;
using Ublkback.Backend.Vbds;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hosting;

namespace Ublkback.Commands.Disks;

/// <summary>Changes arguments of a hook of disks in use.</summary>
/// <param name="Hook">The hook, as in a target, with the arguments to change.</param>
/// <param name="Domid">The guest; null for all guests.</param>
/// <param name="Device">The disk's name in the guest, such as xvda; null for all its disks.</param>
internal sealed record ChangeRequest(string Hook, int? Domid = null, string? Device = null) : ControlRequest("change");

/// <summary><c>ublkback change</c></summary>
internal static class ChangeCommand
{
    public static readonly ControlCommand<ChangeRequest, VbdsReply> Control = new(
        "change", ChangeJson.Default.ChangeRequest, ReplyJson.Default.VbdsReply, AnswerAsync)
    {
        CommandLine = Make,
    };

    private static Task<VbdsReply> AnswerAsync(ChangeRequest request, ControlServices services)
    {
        HookTarget change = HookTarget.Parse(request.Hook);
        foreach (Vbd vbd in services.Choose(request.Domid, request.Device)) vbd.Change(change);
        return Task.FromResult(services.Report(request.Domid, request.Device));
    }

    private static Command Make()
    {
        Option<string> host = CommonOptions.Host();
        Argument<int> domid = new("domid") { Description = "The guest." };
        Argument<string> device = new("device") { Description = "The disk's name in the guest, such as xvda." };
        Argument<string> hook = new("hook") { Description = "The hook, with the arguments to change." };
        Command command = new(
            "change",
            """
            Change arguments of a hook while its disk is used. What is not named stays as it is.

            It holds until the disk is attached again, or another daemon takes over: then the target's arguments do.

            Example:
              ublkback change 3 xvda "throttle(iops=500)"
            """)
        {
            host, domid, device, hook,
        };
        command.SetAction(async (arguments, _) =>
        {
            ChangeRequest request = new(
                arguments.GetRequiredValue(hook), arguments.GetValue(domid), arguments.GetRequiredValue(device));
            IReadOnlyList<VbdReport> vbds = await DiskCommands.AskAsync(
                HostEnvironment.Parse(arguments.GetRequiredValue(host)), Control, request).ConfigureAwait(false);
            foreach (VbdReport vbd in vbds) Console.WriteLine($"guest {vbd.Domid} {vbd.Device}: {request.Hook}");
            return 0;
        });
        return command;
    }
}

/// <summary>How requests are written and read.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(ChangeRequest))]
internal sealed partial class ChangeJson : JsonSerializerContext;
