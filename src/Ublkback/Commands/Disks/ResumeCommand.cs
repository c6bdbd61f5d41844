using System.CommandLine;
using System.Text.Json.Serialization;
using Ublkback.Backend.Vbds;
using Ublkback.Control;

namespace Ublkback.Commands.Disks;

/// <summary>Retries requests that are held because their storage failed.</summary>
/// <param name="Domid">The guest; null for all guests.</param>
/// <param name="Device">The disk's name in the guest, such as xvda; null for all its disks.</param>
internal sealed record ResumeRequest(int? Domid = null, string? Device = null) : ControlRequest("resume");

/// <summary><c>ublkback resume</c></summary>
internal static class ResumeCommand
{
    public static readonly ControlCommand<ResumeRequest, VbdsReply> Control = new(
        "resume", ResumeJson.Default.ResumeRequest, ReplyJson.Default.VbdsReply, AnswerAsync)
    {
        CommandLine = Make,
    };

    private static Task<VbdsReply> AnswerAsync(ResumeRequest request, ControlServices services)
    {
        foreach (Vbd vbd in services.Choose(request.Domid, request.Device)) vbd.Resume();
        return Task.FromResult(services.Report(request.Domid, request.Device));
    }

    private static Command Make() => DiskCommands.Make(
        Control,
        """
        Try again the requests that are held because their storage failed (target option on-error=hold), after it was
        mended.

        What fails again is held again: 'ublkback list' shows it.

        Example:
          rm /images/old.img && ublkback resume
        """,
        (domid, device, _) => new ResumeRequest(domid, device),
        vbd => $"{vbd.InFlight} requests in hand");
}

/// <summary>How requests are written and read.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(ResumeRequest))]
internal sealed partial class ResumeJson : JsonSerializerContext;
