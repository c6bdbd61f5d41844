using System.CommandLine;
using Spectre.Console;
using Ublkback.Control;
using Ublkback.Hosting;

namespace Ublkback.Commands.Disks;

/// <summary><c>ublkback list</c></summary>
internal static class ListCommand
{
    public static Command Make()
    {
        Option<string> host = CommonOptions.Host();
        Option<bool> json = CommonOptions.Json();
        Command command = new("list", "Show the disks that the daemon serves.") { host, json };
        command.SetAction((arguments, _) => Reports.ShowAsync(
            HostEnvironment.Parse(arguments.GetRequiredValue(host)), "list", arguments.GetValue(json), Show));
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
