using System.CommandLine;
using Ublkback.Block;
using Ublkback.Hosting;
using Ublkback.ImageTools;

namespace Ublkback.Commands.Images;

/// <summary><c>ublkback image check</c></summary>
internal static class ImageCheckCommand
{
    public static Command Make(CatalogMaker catalog)
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
            RunAsync(
                catalog.MakeForTools(), arguments.GetRequiredValue(target), arguments.GetValue(repair),
                arguments.GetValue(json)));
        return command;
    }

    private static async Task<int> RunAsync(BlockCatalog catalog, string text, bool repair, bool asJson)
    {
        (BlockTarget target, Func<BlockTarget, bool, ImageOpening, Task<ImageReport>> checkAsync) =
            SchemeTool.Require(catalog, text, scheme => scheme.CheckAsync, "checked");
        ImageReport report = await checkAsync(target, repair, ToolOpening.For("ublkback image check", !repair))
            .ConfigureAwait(false);
        if (asJson) Console.WriteLine(report.Json);
        else foreach (string line in report.Lines) Console.WriteLine(line);
        return report.IsSound ? 0 : 1;
    }
}
