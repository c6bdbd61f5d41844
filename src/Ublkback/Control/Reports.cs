using System.Globalization;
using System.Text.Json;
using Spectre.Console;
using Ublkback.Hosting;

namespace Ublkback.Control;

/// <summary>What the commands that show vbds share.</summary>
internal static class Reports
{
    /// <summary>Asks the daemon for vbds.</summary>
    /// <exception cref="CommandException">There is no daemon, or it could not do it.</exception>
    public static async Task<IReadOnlyList<VbdReport>> AskAsync(HostEnvironment host, ControlRequest request)
    {
        ControlReply reply;
        try
        {
            reply = await ControlClient.AskAsync(host, request).ConfigureAwait(false);
        }
        catch (NoDaemonException failure)
        {
            throw new CommandException(failure.Message);
        }

        return reply.Error is null ? reply.Vbds ?? [] : throw new CommandException(reply.Error);
    }

    public static async Task<int> ShowAsync(
        HostEnvironment host, string request, bool asJson, Action<IReadOnlyList<VbdReport>> show)
    {
        IReadOnlyList<VbdReport> vbds = await AskAsync(host, new ControlRequest(request)).ConfigureAwait(false);
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

    public static string Size(ulong? bytes) => bytes switch
    {
        null => "-",
        < 1 << 10 => string.Create(CultureInfo.InvariantCulture, $"{bytes} B"),
        < 1 << 20 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1024.0:F1} KiB"),
        < 1 << 30 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1048576.0:F1} MiB"),
        < 1L << 40 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1073741824.0:F1} GiB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1099511627776.0:F1} TiB"),
    };
}
