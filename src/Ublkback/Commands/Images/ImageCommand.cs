using System.CommandLine;
using Ublkback.Hosting;

namespace Ublkback.Commands.Images;

/// <summary><c>ublkback image</c></summary>
internal static class ImageCommand
{
    public static Command Make(CatalogMaker catalog) => new("image", """
        Make, look at, check and convert disk images. TARGET is written as in a guest's configuration.

        Examples:
          ublkback image create qcow2:/images/web.qcow2 20G
          ublkback image create qcow2:/images/web2.qcow2 --backing /images/golden.img
          ublkback image info qcow2:/images/web.qcow2
          ublkback image check qcow2:/images/web.qcow2 --repair
          ublkback image resize qcow2:/images/web.qcow2 +5G
          ublkback image convert /images/old.img qcow2:/images/new.qcow2
        """)
    {
        ImageCreateCommand.Make(catalog),
        ImageInfoCommand.Make(catalog),
        ImageCheckCommand.Make(catalog),
        ImageConvertCommand.Make(catalog),
        ImageCommitCommand.Make(catalog),
        ImageMapCommand.Make(catalog),
        ImageResizeCommand.Make(catalog),
    };
}
