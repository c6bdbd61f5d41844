using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Spectre.Console;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.Parallax.Admin;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi list</c></summary>
internal static class VdiListCommand
{
    public static Command Make()
    {
        Option<bool> json = CommonOptions.Json();
        Option<string?> store = VdiSession.Store();
        Command command = new("list", "Show the VDIs of a store.") { json, store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), vdis =>
        {
            List<VdiInfo> infos = VdiReports.DescribeAll(vdis, out int status);
            if (arguments.GetValue(json))
            {
                Console.WriteLine(JsonSerializer.Serialize(infos, VdiReportJson.Default.ListVdiInfo));
                return Task.FromResult(status);
            }

            Table table = Reports.Table("name", "size", "in the file", "snapshots", "clone of", "in use by");
            foreach (VdiInfo info in infos)
            {
                table.AddRow(
                    info.IsUnfinished ? $"{info.Name} (unfinished)" : info.Name,
                    Reports.Size((ulong)info.SizeBytes), Reports.Size((ulong)info.AllocatedBytes),
                    info.Snapshots.Count.ToString(CultureInfo.InvariantCulture), info.Origin,
                    Markup.Escape(info.Holder ?? ""));
            }

            AnsiConsole.Write(table);
            return Task.FromResult(status);
        }));
        return command;
    }
}
