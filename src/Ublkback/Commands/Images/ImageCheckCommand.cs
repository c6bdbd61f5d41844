using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.Images.Qcow2;
using Ublkback.ImageTools;
using Ublkback.Linux.Workers;

namespace Ublkback.Commands.Images;

/// <summary><c>ublkback image check</c></summary>
internal static class ImageCheckCommand
{
    public static Command Make()
    {
        Argument<string> target = new("target") { Description = "The image: qcow2:/path. No guest may be using it." };
        Option<bool> repair =
            new("--repair") { Description = "Make reference counts and marks right. No data is touched." };
        Option<bool> json = CommonOptions.Json();
        Command command = new("check", """
            Compare a qcow2 image's reference counts with what its tables refer to.

            Status 0: it is in order (now); 1: it is not. Leaks cost space and nothing else.
            """)
        {
            target, repair, json,
        };
        command.SetAction((arguments, _) =>
            RunAsync(arguments.GetRequiredValue(target), arguments.GetValue(repair), arguments.GetValue(json)));
        return command;
    }

    private static async Task<int> RunAsync(string text, bool repair, bool asJson)
    {
        Qcow2CheckReport report;
        try
        {
            string path = ImageInfoCommand.PathOf(text);
            ImageOpening opening = ToolOpening.For("ublkback image check", !repair);
            if (Qcow2Tool.HasChangesOutside(path, opening))
            {
                if (!repair)
                    throw new CommandException($"{path} was left by a killed daemon, which had changes of it that "
                        + "are not in the file yet: bring them there with --repair, or attach it again");
                await FinishAsync(path, opening).ConfigureAwait(false);
            }

            report = Qcow2Tool.Check(path, repair, opening);
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

    private static async Task FinishAsync(string path, ImageOpening opening)
    {
        using Worker worker = new("check");
        BlockRequest flush = new() { Operation = BlockOperation.Flush };
        IBlockImage image = new Qcow2Opener(new BlockCatalog()).OpenToFinish(path, opening);
        await using (image.ConfigureAwait(false))
        {
            BlockStatus status = await worker.InvokeAsync(() => image.HandleAsync(flush).AsTask())
                .ConfigureAwait(false);
            if (status != BlockStatus.Okay)
                throw new CommandException(
                    $"changes that a killed daemon left could not be brought into {path}: {status}");
        }

        Console.WriteLine("changes that a killed daemon left were brought into the file");
    }

    private static void Show(Qcow2CheckReport report, bool repair)
    {
        foreach (string message in report.Unrepairable) Console.WriteLine($"cannot be repaired: {message}");
        foreach (string message in report.Repairable) Console.WriteLine(message);
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{report.Allocated} of {report.Total} clusters are in the image, {report.Compressed} of them "
            + $"compressed; it ends at {Reports.Size((ulong)report.EndOffset)}"));
        if (report.Leaks + report.Errors + report.Unrepairable.Count == 0) Console.WriteLine("it is in order");
        else if (report.Unrepairable.Count > 0)
            Console.WriteLine("nothing was changed: restore it from a backup, or save what can be read with "
                + "'ublkback image convert'");
        else if (repair)
            Console.WriteLine(
                string.Create(CultureInfo.InvariantCulture, $"repaired: {report.Leaks} leaks, {report.Errors} errors"));
        else
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"{report.Leaks} leaks, {report.Errors} errors: mend them with --repair"));
    }
}
