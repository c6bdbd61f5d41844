using System.CommandLine;

namespace Ublkback.Commands;

/// <summary><c>ublkback resize</c></summary>
internal static class ResizeCommand
{
    public static Command Make() => DiskCommands.Make(
        "resize",
        """
        Look at the sizes of images again and tell the guests, after a file or device has grown or shrunk.

        A disk that is in use notices by itself within about a second; this is for idle ones.

        Example:
          truncate --size=20G /images/disk.img && ublkback resize 3 xvda
        """,
        vbd => Reports.Size(vbd.SizeBytes));
}
