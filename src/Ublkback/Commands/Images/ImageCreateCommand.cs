using System.CommandLine;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.ImageTools;

namespace Ublkback.Commands.Images;

/// <summary><c>ublkback image create</c></summary>
internal static class ImageCreateCommand
{
    public static Command Make(CatalogMaker catalog)
    {
        Argument<string> target = new("target") { Description = "The image: qcow2:/path, or /path for a raw one." };
        Argument<string?> size = new("size")
        {
            Description =
            "The disk's size, such as 20G. Default: that of the backing image.",
            Arity = ArgumentArity.ZeroOrOne
        };
        Option<string?> backing = new("--backing")
        {
            Description =
            "What shows where the image has nothing: a target, which is never written. For qcow2."
        };
        Option<string?> clusterSize =
            new("--cluster-size") { Description = "The unit of allocation of qcow2, 4K to 2M. Default: 64K." };
        Command command = new("create", "Make an empty image in a new file.") { target, size, backing, clusterSize };
        command.SetAction(arguments => Run(
            catalog, arguments.GetRequiredValue(target), arguments.GetValue(size), arguments.GetValue(backing),
            arguments.GetValue(clusterSize)));
        return command;
    }

    private static int Run(
        CatalogMaker catalog, string text, string? sizeText, string? backingText, string? clusterText)
    {
        BlockCatalog all = catalog.MakeForTools();
        BlockTarget target = BlockTarget.Parse(text);
        ImageScheme scheme = all.Find(target);
        BlockTarget? backing = backingText is null ? null : BlockTarget.Parse(backingText);
        if (backing is not null && scheme.Overlay is null)
            throw new TargetException($"{text} cannot have a backing image: only "
                + $"{all.Examples(one => one.Overlay is not null)} can");
        if (sizeText is null && backing is null)
            throw new TargetException("how large is the disk to be? Give a size, such as 20G");
        long backingSize = backing is null ? 0 : Measure(all, backing);
        long size = sizeText is null ? backingSize : ByteSize.Read(sizeText);
        long? clusterSize = clusterText is null ? null : ByteSize.Read(clusterText);
        SchemeTool.Create(all, target, new NewImage(size, clusterSize, backing));
        Console.WriteLine($"{text}: {Reports.Size((ulong)size)}{(backing is null ? "" : $" over {backingText}")}");
        if (backing is not null)
        {
            IEnumerable<string> options = scheme.Trust(target).Options.Select(pair => $"{pair.Key}={pair.Value}");
            Console.WriteLine(
                $"attach it with target={target.Scheme}:{target.Location}?{string.Join('&', options)}");
        }

        return 0;
    }

    // Opening it shows too that it can be opened.
    private static long Measure(BlockCatalog catalog, BlockTarget backing)
    {
        IBlockImage image = catalog.Open(
            backing, ToolOpening.For("ublkback image create", isReadOnly: true));
        long size = (long)image.Geometry.SectorCount * BlockRequest.SectorSize;
        image.DisposeAsync().AsTask().GetAwaiter().GetResult();
        return size;
    }
}
