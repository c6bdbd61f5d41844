using System.CommandLine;
using System.Text.Json.Serialization;
using Ublkback.Hosting;
using Ublkback.Parallax.Admin;

namespace Ublkback.Commands.Vdis;

/// <summary>Reads what several commands print of VDIs.</summary>
internal static class VdiReports
{
    /// <summary>
    /// Returns all VDIs of a store that can be read. Errors of the others go to standard error, and the status is 1.
    /// </summary>
    public static List<VdiInfo> DescribeAll(VdiAdmin store, out int status)
    {
        int failures = 0;
        List<VdiInfo> infos = [.. store.DescribeAll((name, damage) =>
        {
            Console.Error.WriteLine($"ublkback: VDI {name}: {damage.Message}");
            Interlocked.Increment(ref failures);
        })];
        status = failures == 0 ? 0 : 1;
        return infos;
    }

    /// <summary>Creates a command that prints what is known of one VDI.</summary>
    /// <param name="verb">The command's name.</param>
    /// <param name="description">The help text.</param>
    /// <param name="show">Prints it, as JSON if the second argument is true.</param>
    public static Command MakeCommand(string verb, string description, Action<VdiInfo, bool> show)
    {
        Argument<string> name = new("name") { Description = "The VDI, in use or not." };
        Option<bool> json = CommonOptions.Json();
        Option<string?> store = VdiSession.Store();
        Command command = new(verb, description) { name, json, store };
        command.SetAction((arguments, _) => VdiSession.RunAsync(arguments.GetValue(store), vdis =>
        {
            VdiInfo info = vdis.Describe(arguments.GetRequiredValue(name));
            show(info, arguments.GetValue(json));
            if (!info.IsUnfinished) return Task.FromResult(0);
            Console.Error.WriteLine($"ublkback: {VdiAdmin.ExplainUnfinished(info)}");
            return Task.FromResult(1);
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
