using System.CommandLine;
using System.Globalization;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.ImageTools;
using Ublkback.Linux.Workers;

namespace Ublkback.Commands.Images;

/// <summary><c>ublkback image commit</c></summary>
internal static class ImageCommitCommand
{
    public static Command Make(CatalogMaker catalog)
    {
        Argument<string> target = new(
            "target")
        { Description = "The overlay: qcow2:/path. No guest may be using it, or what lies below it." };
        Command command = new("commit", """
            Write what an overlay holds into its backing image, which then shows what the overlay shows.

            The overlay is not changed; it is not needed any more. Other overlays of the same backing image become
            wrong. When it is interrupted, run it again.
            """)
        {
            target,
        };
        command.SetAction((arguments, _) => RunAsync(
            catalog.MakeForTools(), arguments.GetRequiredValue(target)));
        return command;
    }

    private static async Task<int> RunAsync(BlockCatalog catalog, string text)
    {
        (BlockTarget target, OverlayScheme scheme) =
            SchemeTool.Require(catalog, text, scheme => scheme.Overlay, "committed");
        BlockTarget below = scheme.FindBacking(target)
            ?? throw new CommandException($"{text} has no backing image: there is nothing to commit it to");
        using Worker worker = new("commit");
        IAllocationMap overlay =
            (IAllocationMap)catalog.Open(
                scheme.Alone(target), ToolOpening.For("ublkback image commit", isReadOnly: true));
        await using (overlay.ConfigureAwait(false))
        {
            IBlockImage backing = catalog.Open(below, ToolOpening.For("ublkback image commit", isReadOnly: false));
            await using (backing.ConfigureAwait(false))
            {
                long written = await CopyAsync(worker, overlay, backing, text, below.Location)
                    .ConfigureAwait(false);
                Console.WriteLine(string.Create(
                    CultureInfo.InvariantCulture,
                    $"{Reports.Size((ulong)written)} committed to {below.Location}; "
                    + $"{target.Location} is not needed any more"));
            }
        }

        return 0;
    }

    private static async Task<long> CopyAsync(
        Worker worker, IAllocationMap overlay, IBlockImage backing, string text, string below)
    {
        if (backing.Geometry.SectorCount < overlay.Geometry.SectorCount)
            throw new CommandException(
                $"the disk of {text} is larger than {below}, by "
                    + $"{overlay.Geometry.SectorCount - backing.Geometry.SectorCount} sectors",
                "make that larger first; nothing was changed");
        long size = (long)overlay.Geometry.SectorCount * BlockRequest.SectorSize;
        (BlockStatus status, long written) = await CopyProgress.ShowAsync(below, size, onProgress =>
        {
            Converter converter =
                new(overlay, backing, isEmpty: false, compares: false, onProgress) { LeavesOutAbsent = true };
            return worker.InvokeAsync(async () => (await converter.RunAsync(), converter.Written));
        }).ConfigureAwait(false);
        return status == BlockStatus.Okay
            ? written
            : throw new CommandException(
                $"{text} was not committed as a whole ({status}): what failed is said above", "run it again");
    }
}
