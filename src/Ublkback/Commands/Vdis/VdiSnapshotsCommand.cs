using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Ublkback.Parallax.Admin;

namespace Ublkback.Commands.Vdis;

/// <summary><c>ublkback vdi snapshots</c></summary>
internal static class VdiSnapshotsCommand
{
    public static Command Make() => VdiReports.MakeCommand(
        "snapshots", "Show the snapshots of a VDI, in the order in which they were made.", Show);

    private static void Show(VdiInfo info, bool asJson)
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
    }
}
