using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Spectre.Console;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hooks.Trace;
using Ublkback.Hosting;
using Ublkback.ImageTools;
using Ublkback.Linux.Workers;
using Ublkback.Replay;

namespace Ublkback.Commands;

/// <summary><c>ublkback replay</c></summary>
internal static class ReplayCommand
{
    private const long MaxRequestBytes = 16 << 20; // many times what a ring can ask for

    public static Command Make(CatalogMaker catalog)
    {
        Argument<string> capture = new("capture") { Description = "A file that the hook trace(format=binary) wrote." };
        Argument<string> target =
            new("target") { Description = "What to play it against, written as in a guest's configuration." };
        Option<bool> write = new("--write") { Description = "Play writes and discards too, which changes the target." };
        Option<bool> readsOnly = new("--reads-only") { Description = "Leave writes and discards out." };
        Option<bool> fast = new("--fast") { Description = "As fast as the target can, in the order of the capture." };
        Option<string> host = CommonOptions.Host();
        Option<bool> json = CommonOptions.Json();
        Command command = new("replay", """
            Play a capture of a guest's requests against any target: compare data, results and times.

            Status 0: all data and results are as in the capture; 1: some are not.

            Example:
              ublkback replay /var/log/web.capture /images/web-copy.img --write
            """)
        {
            capture, target, write, readsOnly, fast, host, json,
        };
        command.SetAction((arguments, _) => RunAsync(
            catalog.Make(
                HostEnvironment.Parse(arguments.GetRequiredValue(host)), out IReadOnlyList<Plugins.PluginReport> _),
            arguments.GetRequiredValue(capture), arguments.GetRequiredValue(target), arguments.GetValue(write),
            arguments.GetValue(readsOnly), !arguments.GetValue(fast), arguments.GetValue(json)));
        return command;
    }

    private static async Task<int> RunAsync(
        BlockCatalog catalog, string path, string target, bool write, bool readsOnly, bool keepsTime, bool asJson)
    {
        using TraceCapture capture = Open(path);
        long changes = capture.Requests.LongCount(
            entry => entry.Record.Operation is BlockOperation.Write or BlockOperation.Discard);
        if (changes > 0 && write == readsOnly)
            throw new CommandException(
                $"the capture has {changes} writes and discards, which would change {target}",
                "say --write to play them, or --reads-only to leave them out");
        ReplayReport report;
        using Worker worker = new("replay");
        IBlockImage image = catalog.Open(
            BlockTarget.Parse(target),
            ToolOpening.For("ublkback replay", isReadOnly: !write));
        await using (image.ConfigureAwait(false))
        {
            Check(capture, image.Geometry, target);
            ReplaySchedule schedule = new(capture);
            Replayer replayer = new(capture, schedule, image, new ReplayOptions(write, keepsTime));
            report = (await worker.InvokeAsync(replayer.RunAsync).ConfigureAwait(false))
                .Report(capture, schedule.Length);
        }

        if (asJson) Console.WriteLine(JsonSerializer.Serialize(report, ReplayJson.Default.ReplayReport));
        else Show(report);
        return report.IsSame ? 0 : 1;
    }

    private static TraceCapture Open(string path)
    {
        try
        {
            return TraceCapture.Open(path);
        }
        catch (Exception failure) when (failure is IOException or InvalidDataException or UnauthorizedAccessException)
        {
            throw new CommandException($"{path} cannot be played: {failure.Message}", failure);
        }
    }

    private static void Check(TraceCapture capture, ImageGeometry geometry, string target)
    {
        foreach (TraceCapture.Entry entry in capture.Requests)
        {
            TraceRecord record = entry.Record;
            ulong unit = (ulong)geometry.SectorSize / BlockRequest.SectorSize;
            ulong count = (ulong)record.SectorCount;
            bool fits = count <= geometry.SectorCount && record.Sector <= geometry.SectorCount - count
                && record.Sector % unit == 0 && count % unit == 0
                && (count == 0) == (record.Operation == BlockOperation.Flush)
                && (record.Operation == BlockOperation.Discard || count <= MaxRequestBytes / BlockRequest.SectorSize);
            if (!fits)
                throw new CommandException($"the capture has a {record.Operation} of {count} sectors at "
                    + $"{record.Sector}, and {target} has {geometry.SectorCount} sectors in units of {unit}: nothing "
                    + "was played");
        }
    }

    private static void Show(ReplayReport report)
    {
        Table table = Reports.Table("Operation", "Requests", "p50 then", "p50 now", "p99 then", "p99 now");
        foreach (ReplayLatency operation in report.Operations)
        {
            table.AddRow(
                operation.Operation, operation.Count.ToString("N0", CultureInfo.InvariantCulture),
                Time(operation.ThenP50Us),
                Time(operation.NowP50Us), Time(operation.ThenP99Us), Time(operation.NowP99Us));
        }

        AnsiConsole.Write(table);
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"took {report.ReplaySeconds:F2} s, the capture {report.CaptureSeconds:F2} s; requests came "
            + $"{report.BehindMs:F1} ms late at most"));
        Console.WriteLine($"reads: {report.ReadsSame} the same, {report.ReadsDifferent} different, "
            + $"{report.ReadsNotCompared} not compared");
        Console.WriteLine($"results: {report.OtherStatus} other than in the capture");
        if (report.LeftOut > 0) Console.WriteLine($"{report.LeftOut} writes and discards were left out");
        if (report.Lost > 0)
            Console.WriteLine($"the capture lacks {report.Lost} requests, which may be why data differ");
        if (report.IsDamaged)
            Console.WriteLine("a part of the capture makes no sense and was left out, which may be why data differ");
        foreach (string example in report.Examples) Console.WriteLine($"  {example}");
    }

    private static string Time(double microseconds) =>
        string.Create(CultureInfo.InvariantCulture, $"{microseconds:F0} µs");
}
