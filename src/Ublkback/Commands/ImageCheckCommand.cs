using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Ublkback.Block;
using Ublkback.Images.Qcow2;
using Ublkback.ImageTools;

namespace Ublkback.Commands;

/// <summary><c>ublkback image check</c></summary>
internal static class ImageCheckCommand
{
    public static Command Make()
    {
        Argument<string> target = new("target") { Description = "The image: qcow2:/path. No guest may be using it." };
        Option<bool> repair = new("--repair") { Description = "Make reference counts and marks right. No data is touched." };
        Option<bool> json = CommonOptions.Json();
        Command command = new("check", """
            Compare a qcow2 image's reference counts with what its tables refer to.

            Status 0: it is in order (now); 1: it is not. Leaks cost space and nothing else.
            """)
        {
            target, repair, json,
        };
        command.SetAction(arguments => Run(arguments.GetRequiredValue(target), arguments.GetValue(repair), arguments.GetValue(json)));
        return command;
    }

    private static int Run(string text, bool repair, bool asJson)
    {
        Qcow2CheckReport report;
        try
        {
            report = Qcow2Tool.Check(ImageInfoCommand.PathOf(text), repair, ToolOpening.For("ublkback image check", !repair));
        }
        catch (TargetException failure)
        {
            throw new CommandException(failure.Message);
        }

        if (asJson) Console.WriteLine(JsonSerializer.Serialize(report, ImageJson.Default.Qcow2CheckReport));
        else Show(report, repair);
        bool isInOrder = report.Unrepairable.Count == 0 && (repair || report.Repairable.Count == 0);
        return isInOrder ? 0 : 1;
    }

    private static void Show(Qcow2CheckReport report, bool repair)
    {
        foreach (string message in report.Unrepairable) Console.WriteLine($"cannot be repaired: {message}");
        foreach (string message in report.Repairable) Console.WriteLine(message);
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{report.Allocated} of {report.Total} clusters are in the image, {report.Compressed} of them compressed; it ends at {Reports.Size((ulong)report.EndOffset)}"));
        if (report.Leaks + report.Errors + report.Unrepairable.Count == 0) Console.WriteLine("it is in order");
        else if (report.Unrepairable.Count > 0) Console.WriteLine("nothing was changed: restore it from a backup, or save what can be read with 'ublkback image convert'");
        else if (repair) Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"repaired: {report.Leaks} leaks, {report.Errors} errors"));
        else Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{report.Leaks} leaks, {report.Errors} errors: mend them with --repair"));
    }
}
