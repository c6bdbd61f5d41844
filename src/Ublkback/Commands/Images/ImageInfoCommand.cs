using System.CommandLine;
using Ublkback.Block;
using Ublkback.Hosting;
using Ublkback.ImageTools;

namespace Ublkback.Commands.Images;

/// <summary><c>ublkback image info</c></summary>
internal static class ImageInfoCommand
{
    public static Command Make(CatalogMaker catalog)
    {
        Argument<string> target = new("target") { Description = "The image: qcow2:/path." };
        Option<bool> json = CommonOptions.Json();
        Command command =
            new("info", "Show what a qcow2 image says of itself, whether or not a guest uses it.") { target, json };
        command.SetAction(arguments => Run(
            catalog.MakeForTools(), arguments.GetRequiredValue(target), arguments.GetValue(json)));
        return command;
    }

    private static int Run(BlockCatalog catalog, string text, bool asJson)
    {
        (BlockTarget target, Func<BlockTarget, ImageReport> describe) =
            SchemeTool.Require(catalog, text, scheme => scheme.Describe, "described");
        ImageReport report = describe(target);
        if (asJson) Console.WriteLine(report.Json);
        else foreach (string line in report.Lines) Console.WriteLine(line);
        return 0;
    }
}
