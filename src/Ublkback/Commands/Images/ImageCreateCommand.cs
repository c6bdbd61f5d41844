using System.CommandLine;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.Images.Qcow2;
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
        try
        {
            BlockTarget target = BlockTarget.Parse(text);
            BlockTarget? backing = backingText is null ? null : BlockTarget.Parse(backingText);
            if (backing is not null && target.Scheme != Qcow2Opener.Scheme)
                throw new TargetException($"{text} cannot have a backing image: only {Qcow2Opener.Scheme}: can");
            if (sizeText is null && backing is null)
                throw new TargetException("how large is the disk to be? Give a size, such as 20G");
            long backingSize = backing is null ? 0 : Measure(catalog, backing);
            long size = sizeText is null ? backingSize : SizeText.Read(sizeText);
            NewImage.Create(
                target, size,
                clusterText is null
                    ? Qcow2Tool.DefaultClusterSize
                    : (int)Math.Min(SizeText.Read(clusterText), int.MaxValue),
                backing is null ? null : NewImage.NameOf(backing));
            Console.WriteLine($"{text}: {Reports.Size((ulong)size)}{(backing is null ? "" : $" over {backingText}")}");
            if (backing is not null)
                Console.WriteLine($"attach it with target={Qcow2Opener.Scheme}:{target.Location}?backing=allow");
            return 0;
        }
        catch (TargetException failure)
        {
            throw new CommandException(failure.Message);
        }
    }

    // Opening it shows too that it can be opened.
    private static long Measure(CatalogMaker catalog, BlockTarget backing)
    {
        IBlockImage image = catalog.MakeForTools().Open(
            backing.Scheme == Qcow2Opener.Scheme ? backing.WithDefault("backing", "allow") : backing,
            ToolOpening.For("ublkback image create", isReadOnly: true));
        long size = (long)image.Geometry.SectorCount * BlockRequest.SectorSize;
        image.DisposeAsync().AsTask().GetAwaiter().GetResult();
        return size;
    }
}
