using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Ublkback.Control;
using Ublkback.Parallax.Admin;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi info</c></summary>
internal static class VdiInfoCommand
{
    public static Command Make() => VdiReports.MakeCommand("info", "Show what is known of a VDI.", Show);

    private static void Show(VdiInfo info, bool asJson)
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
    }
}
