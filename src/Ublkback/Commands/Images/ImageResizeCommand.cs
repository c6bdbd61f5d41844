using System.CommandLine;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.ImageTools;
using Ublkback.Linux.Workers;

namespace Ublkback.Commands.Images;

/// <summary><c>ublkback image resize</c></summary>
internal static class ImageResizeCommand
{
    public static Command Make(CatalogMaker catalog)
    {
        Argument<string> target = new("target")
        {
            Description =
            "The image. No guest may be using it: a disk in use grows by 'ublkback resize DOMID DEVICE --size SIZE'."
        };
        Argument<string> size = new("size") { Description = "The new size, such as 20G, or +5G for so much more." };
        Option<bool> shrink =
            new("--shrink") { Description = "The new size is smaller, and what lies behind it is lost." };
        Command command = new(
            "resize", "Make the disk of an image larger, or smaller. What is added reads as zeros.") { target, size,
                shrink };
        command.SetAction((arguments, _) => RunAsync(
            catalog.MakeForTools(), arguments.GetRequiredValue(target), arguments.GetRequiredValue(size),
            arguments.GetValue(shrink)));
        return command;
    }

    private static async Task<int> RunAsync(BlockCatalog catalog, string text, string sizeText, bool shrinks)
    {
        bool isMore = sizeText.StartsWith('+');
        long size = ByteSize.Read(sizeText.TrimStart('+'));
        using Worker worker = new("resize");
        IBlockImage image = catalog.Open(
            BlockTarget.Parse(text), ToolOpening.For("ublkback image resize", isReadOnly: false));
        await using (image.ConfigureAwait(false))
        {
            long now = (long)image.Geometry.SectorCount * BlockRequest.SectorSize;
            if (isMore) size += now;
            if (size <= 0 || size % image.Geometry.SectorSize != 0)
                throw new CommandException(
                    $"a disk cannot have {size} bytes", $"give a multiple of {image.Geometry.SectorSize}");
            if (size < now && !shrinks)
                throw new CommandException(
                    $"{text} has {Reports.Size((ulong)now)}, and what lies behind "
                        + $"{Reports.Size((ulong)size)} would be lost",
                    "say --shrink if it is not needed");
            await worker.InvokeAsync(() => image.ResizeAsync(size)).ConfigureAwait(false);
            Console.WriteLine($"{text}: {Reports.Size((ulong)now)} before, {Reports.Size((ulong)size)} now");
        }

        return 0;
    }
}
