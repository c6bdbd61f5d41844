using System.CommandLine;
using System.Text.Json.Serialization;
using Spectre.Console;
using Ublkback.Control;
using Ublkback.Hosting;

namespace Ublkback.Commands.Disks;

/// <summary>Asks for all vbds.</summary>
internal sealed record ListRequest() : ControlRequest("list");

/// <summary><c>ublkback list</c></summary>
internal static class ListCommand
{
    public static readonly ControlCommand<ListRequest, DaemonReply> Control = new(
        "list", ListJson.Default.ListRequest, ReplyJson.Default.DaemonReply, AnswerAsync)
    {
        CommandLine = Make,
    };

    private static Task<DaemonReply> AnswerAsync(ListRequest request, ControlServices services) =>
        Task.FromResult(services.ReportAll(withOperations: false));

    private static Command Make()
    {
        Option<string> host = CommonOptions.Host();
        Option<bool> json = CommonOptions.Json();
        Command command = new("list", "Show the disks that the daemon serves.") { host, json };
        command.SetAction((arguments, _) => Reports.ShowAsync(
            HostEnvironment.Parse(arguments.GetRequiredValue(host)), Control, new ListRequest(),
            arguments.GetValue(json), Show));
        return command;
    }

    private static void Show(IReadOnlyList<VbdReport> vbds)
    {
        Table table = Reports.Table("Guest", "Device", "State", "Access", "Size", "Slots", "Target");
        foreach (VbdReport vbd in vbds)
        {
            table.AddRow(
                $"{vbd.Domid}", Markup.Escape(vbd.Device), Markup.Escape(vbd.Trouble ?? vbd.State), vbd.Access,
                Reports.Size(vbd.SizeBytes),
                vbd.RingSlots?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? "-",
                Markup.Escape(vbd.Target));
        }

        AnsiConsole.Write(table);
    }
}

/// <summary>How requests are written and read.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(ListRequest))]
internal sealed partial class ListJson : JsonSerializerContext;
