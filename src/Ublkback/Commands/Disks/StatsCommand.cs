using System.CommandLine;
using System.Globalization;
using System.Text.Json.Serialization;
using Spectre.Console;
using Ublkback.Control;
using Ublkback.Hosting;

namespace Ublkback.Commands.Disks;

/// <summary>Asks for all vbds with the figures of their operations.</summary>
internal sealed record StatsRequest() : ControlRequest("stats");

/// <summary><c>ublkback stats</c></summary>
internal static class StatsCommand
{
    public static readonly ControlCommand<StatsRequest, DaemonReply> Control = new(
        "stats", StatsJson.Default.StatsRequest, ReplyJson.Default.DaemonReply, AnswerAsync)
    {
        CommandLine = Make,
    };

    private static Task<DaemonReply> AnswerAsync(StatsRequest request, ControlServices services) =>
        Task.FromResult(services.ReportAll(withOperations: true));

    private static Command Make()
    {
        Option<string> host = CommonOptions.Host();
        Option<bool> json = CommonOptions.Json();
        Command command =
            new("stats", "Show what each disk has done: requests, bytes, errors, latency.") { host, json };
        command.SetAction((arguments, _) => Reports.ShowAsync(
            HostEnvironment.Parse(arguments.GetRequiredValue(host)), Control, new StatsRequest(),
            arguments.GetValue(json), Show));
        return command;
    }

    private static void Show(IReadOnlyList<VbdReport> vbds)
    {
        foreach (VbdReport vbd in vbds)
        {
            string oldest = vbd.OldestMs is double age ? $" (the oldest for {Time(age * 1000)})" : "";
            string trouble = vbd.Trouble is null ? "" : $", {vbd.Trouble}";
            Console.WriteLine($"guest {vbd.Domid} {vbd.Device}, {vbd.Target}: {vbd.InFlight} in flight{oldest}, "
                + $"{vbd.Refused} refused{trouble}");
            Table table = Reports.Table("Operation", "Requests", "Bytes", "Errors", "p50", "p99", "p99.9");
            foreach (OperationReport operation in vbd.Operations ?? [])
            {
                table.AddRow(
                    operation.Operation, Count(operation.Requests), Reports.Size((ulong)operation.Bytes),
                    Count(operation.Errors), Time(operation.P50Us), Time(operation.P99Us), Time(operation.P999Us));
            }

            AnsiConsole.Write(table);
        }
    }

    private static string Count(long count) => count.ToString("N0", CultureInfo.InvariantCulture);

    private static string Time(double microseconds) => microseconds switch
    {
        0 => "-",
        < 1000 => string.Create(CultureInfo.InvariantCulture, $"{microseconds:F0} µs"),
        < 1_000_000 => string.Create(CultureInfo.InvariantCulture, $"{microseconds / 1000:F1} ms"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{microseconds / 1_000_000:F1} s"),
    };
}

/// <summary>How requests are written and read.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(StatsRequest))]
internal sealed partial class StatsJson : JsonSerializerContext;
