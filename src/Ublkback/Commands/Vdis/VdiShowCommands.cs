using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using Spectre.Console;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.Parallax.Admin;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi list</c>, <c>info</c>, <c>snapshots</c>, <c>diff</c> and <c>lock</c></summary>
internal static class VdiShowCommands
{
    public static Command MakeList()
    {
        Option<bool> json = CommonOptions.Json();
        Option<string?> store = VdiSession.Store();
        Command command = new("list", "Show the VDIs of a store.") { json, store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), vdis =>
        {
            List<VdiInfo> infos = DescribeAll(vdis, out int status);
            if (arguments.GetValue(json))
            {
                Console.WriteLine(JsonSerializer.Serialize(infos, VdiReportJson.Default.ListVdiInfo));
                return Task.FromResult(status);
            }

            Table table = Reports.Table("name", "size", "in the file", "snapshots", "clone of", "in use by");
            foreach (VdiInfo info in infos)
            {
                table.AddRow(
                    info.Name, Reports.Size((ulong)info.SizeBytes), Reports.Size((ulong)info.AllocatedBytes),
                    info.Snapshots.Count.ToString(CultureInfo.InvariantCulture), info.Origin,
                    Markup.Escape(info.Holder ?? ""));
            }

            AnsiConsole.Write(table);
            return Task.FromResult(status);
        }));
        return command;
    }

    public static Command MakeInfo() => MakeFor("info", "Show what is known of a VDI.", (info, asJson) =>
    {
        if (asJson)
        {
            Console.WriteLine(JsonSerializer.Serialize(info, VdiReportJson.Default.VdiInfo));
            return;
        }

        Console.WriteLine($"name: {info.Name}, number {info.Number:x6}");
        Console.WriteLine($"disk: {Reports.Size((ulong)info.SizeBytes)} ({info.SizeBytes} bytes)");
        Console.WriteLine($"file: {Reports.Size((ulong)info.AllocatedBytes)}");
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"made: {info.Created:yyyy-MM-dd HH:mm:ss} UTC"));
        if (info.Origin.Length > 0) Console.WriteLine($"clone of: {info.Origin}");
        Console.WriteLine($"snapshots: {info.Snapshots.Count}");
        Console.WriteLine($"in use by: {info.Holder ?? "nobody"}");
    });

    public static Command MakeSnapshots() =>
        MakeFor("snapshots", "Show the snapshots of a VDI, in the order in which they were made.", (info, asJson) =>
    {
        if (asJson)
        {
            Console.WriteLine(
                JsonSerializer.Serialize(info.Snapshots, VdiReportJson.Default.IReadOnlyListVdiSnapshotInfo));
            return;
        }

        foreach (VdiSnapshotInfo snapshot in info.Snapshots)
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"{snapshot.Created:yyyy-MM-dd HH:mm:ss.fff} UTC  {info.Name}@{snapshot.Name}"));
    });

    public static Command MakeDiff()
    {
        Argument<string> one = new("one") { Description = "NAME, which no guest may be using, or NAME@SNAPSHOT." };
        Argument<string> other = new("other") { Description = "The same." };
        Option<bool> json = CommonOptions.Json();
        Option<string?> store = VdiSession.Store();
        Command command = new(
            "diff",
            "Show where two disks differ, without reading them: what both have from the same snapshot is the same.")
        {
            one, other, json, store,
        };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), async vdis =>
        {
            IReadOnlyList<VdiRange> ranges = await vdis.DiffAsync(
                arguments.GetRequiredValue(one), arguments.GetRequiredValue(other)).ConfigureAwait(false);
            if (arguments.GetValue(json))
            {
                Console.WriteLine(JsonSerializer.Serialize(ranges, VdiReportJson.Default.IReadOnlyListVdiRange));
                return 0;
            }

            foreach (VdiRange range in ranges)
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{range.Offset,20} {range.Length,16}"));
            Console.WriteLine($"{Reports.Size((ulong)ranges.Sum(range => range.Length))} differ");
            return 0;
        }));
        return command;
    }

    /// <summary>
    /// All VDIs of a store that can be read. What is wrong with others goes to standard error; then the status is not
    /// 0.
    /// </summary>
    public static List<VdiInfo> DescribeAll(VdiAdmin store, out int status)
    {
        List<VdiInfo> infos = [];
        status = 0;
        foreach (string name in store.Names)
        {
            try
            {
                infos.Add(store.Describe(name));
            }
            catch (TargetException damage)
            {
                Console.Error.WriteLine($"ublkback: VDI {name}: {damage.Message}");
                status = 1;
            }
        }

        return infos;
    }

    private static Command MakeFor(string verb, string description, Action<VdiInfo, bool> show)
    {
        Argument<string> name = new("name") { Description = "The VDI, in use or not." };
        Option<bool> json = CommonOptions.Json();
        Option<string?> store = VdiSession.Store();
        Command command = new(verb, description) { name, json, store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), vdis =>
        {
            show(vdis.Describe(arguments.GetRequiredValue(name)), arguments.GetValue(json));
            return Task.FromResult(0);
        }));
        return command;
    }
}

/// <summary>How the VDI commands' reports are written as JSON.</summary>
[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(List<VdiInfo>))]
[JsonSerializable(typeof(IReadOnlyList<VdiSnapshotInfo>))]
[JsonSerializable(typeof(IReadOnlyList<VdiRange>))]
[JsonSerializable(typeof(VdiCheck))]
internal sealed partial class VdiReportJson : JsonSerializerContext;
