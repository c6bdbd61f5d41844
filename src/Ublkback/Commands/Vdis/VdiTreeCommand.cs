using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Spectre.Console;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.Parallax.Admin;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi tree</c></summary>
internal static class VdiTreeCommand
{
    public static Command Make()
    {
        Option<bool> json = CommonOptions.Json();
        Option<bool> dot =
            new("--dot") { Description = "Print it for Graphviz, as in 'ublkback vdi tree --dot | dot -Tsvg'." };
        Option<string?> store = VdiSession.Store();
        Command command =
            new("tree", "Show VDIs, their snapshots, and what was cloned from these.") { json, dot, store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), vdis =>
        {
            List<VdiInfo> infos = VdiReports.DescribeAll(vdis, out int status);
            if (arguments.GetValue(json))
                Console.WriteLine(JsonSerializer.Serialize(infos, VdiReportJson.Default.ListVdiInfo));
            else if (arguments.GetValue(dot)) WriteDot(infos);
            else Show(infos);
            return Task.FromResult(status);
        }));
        return command;
    }

    private static void Show(List<VdiInfo> infos)
    {
        // A clone whose snapshot is gone stands alone.
        HashSet<string> snapshots = [
            .. infos.SelectMany(info => info.Snapshots.Select(snapshot => $"{info.Name}@{snapshot.Name}"))];
        if (Console.IsOutputRedirected)
        {
            AnsiConsole.Profile.Width = 400;
            AnsiConsole.Profile.Capabilities.Ansi = false;
            AnsiConsole.Profile.Capabilities.ColorSystem = ColorSystem.NoColors;
        }

        foreach (VdiInfo info in infos.Where(info => !snapshots.Contains(info.Origin)))
        {
            Tree tree = new(TextOf(info));
            Add(tree, info, infos);
            AnsiConsole.Write(tree);
        }
    }

    private static void Add(IHasTreeNodes parent, VdiInfo info, List<VdiInfo> infos)
    {
        foreach (VdiSnapshotInfo snapshot in info.Snapshots)
        {
            string name = $"{info.Name}@{snapshot.Name}";
            TreeNode node = parent.AddNode(string.Create(
                CultureInfo.InvariantCulture, $"@{snapshot.Name}  [grey]{snapshot.Created:yyyy-MM-dd HH:mm:ss}[/]"));
            foreach (VdiInfo clone in infos.Where(clone => clone.Origin == name))
                Add(node.AddNode(TextOf(clone)), clone, infos);
        }
    }

    private static string TextOf(VdiInfo info)
    {
        string origin = info.Origin.Length > 0 ? $"  [grey]clone of {info.Origin}[/]" : "";
        string holder = info.Holder is null ? "" : $"  [green]{Markup.Escape(info.Holder)}[/]";
        string state = info.IsUnfinished ? "  [red]unfinished[/]" : "";
        return $"[bold]{info.Name}[/]{state}  {Reports.Size((ulong)info.SizeBytes)}{origin}{holder}";
    }

    private static void WriteDot(List<VdiInfo> infos)
    {
        Console.WriteLine("digraph vdis {");
        Console.WriteLine("  rankdir=LR; node [fontname=\"sans-serif\"];");
        foreach (VdiInfo info in infos)
        {
            Console.WriteLine($"  \"{info.Name}\" [shape=box, style=filled, "
                + $"fillcolor={(info.Holder is null ? "white" : "palegreen")}];");
            foreach (VdiSnapshotInfo snapshot in info.Snapshots)
                Console.WriteLine($"  \"{info.Name}\" -> \"{info.Name}@{snapshot.Name}\";");
            if (info.Origin.Length > 0) Console.WriteLine($"  \"{info.Origin}\" -> \"{info.Name}\" [style=dashed];");
        }

        Console.WriteLine("}");
    }
}
