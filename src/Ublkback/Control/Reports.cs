using System.Text.Json;
using Spectre.Console;
using Ublkback.Block;
using Ublkback.Hosting;

namespace Ublkback.Control;

/// <summary>Asks the daemon for vbds and prints them, for several commands.</summary>
internal static class Reports
{
    /// <summary>Asks for all vbds and prints them.</summary>
    public static async Task<int> ShowAsync<TRequest>(
        HostEnvironment host, ControlCommand<TRequest, DaemonReply> command, TRequest request, bool asJson,
        Action<IReadOnlyList<VbdReport>> show)
        where TRequest : ControlRequest
    {
        DaemonReply reply = await ControlClient.AskAsync(host, command, request).ConfigureAwait(false);
        IReadOnlyList<VbdReport> vbds = reply.Vbds;
        if (asJson) Console.WriteLine(JsonSerializer.Serialize(vbds, ReportJson.Default.IReadOnlyListVbdReport));
        else if (vbds.Count == 0) Console.WriteLine("no disks: no guest has one with script=block-ublkback");
        else show(vbds);
        return 0;
    }

    public static Table Table(params string[] columns)
    {
        // A pipe has no width of its own; wide enough means that no row is broken.
        if (Console.IsOutputRedirected) AnsiConsole.Profile.Width = 400;
        Table table = new() { Border = TableBorder.Rounded };
        foreach (string column in columns) table.AddColumn(new TableColumn(column) { NoWrap = true });
        return table;
    }

    public static string Size(ulong? bytes) => bytes is ulong size ? ByteSize.Format(size) : "-";
}
