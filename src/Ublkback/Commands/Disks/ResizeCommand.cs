using System.CommandLine;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.ImageTools;

namespace Ublkback.Commands.Disks;

/// <summary><c>ublkback resize</c></summary>
internal static class ResizeCommand
{
    public static Command Make()
    {
        Option<string?> size = new("--size")
        {
            Description =
            "Have the daemon make the disk so large, such as 20G. It cannot shrink while it is used."
        };
        Command command = DiskCommands.Make(
            "resize",
            """
            Make a disk larger while it is used, or look at the sizes of images again, and tell the guests.

            Without --size: after a file or device has grown or shrunk by other means. A disk in use notices that by
            itself within about a second; this is for idle ones.

            Examples:
              ublkback resize 3 xvda --size 20G
              truncate --size=20G /images/disk.img && ublkback resize 3 xvda
            """,
            vbd => Reports.Size(vbd.SizeBytes),
            (arguments, request) => arguments.GetValue(size) is string text
                ? request with { SizeBytes = ReadSize(text, request) }
                : request);
        command.Add(size);
        return command;
    }

    private static long ReadSize(string text, ControlRequest request)
    {
        if (request.Domid is null || request.Device is null)
            throw new CommandException(
                "which disk is to have that size? Give guest and device, as in 'ublkback resize 3 xvda --size 20G'");
        try
        {
            return NewImage.ReadSize(text);
        }
        catch (TargetException failure)
        {
            throw new CommandException(failure.Message);
        }
    }
}
