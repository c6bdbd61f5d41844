using System.CommandLine;
using System.Globalization;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.ImageTools;
using Ublkback.Linux.Workers;

namespace Ublkback.Commands.Images;

/// <summary><c>ublkback image convert</c></summary>
internal static class ImageConvertCommand
{
    public static Command Make(CatalogMaker catalog)
    {
        Argument<string> from = new("from") { Description = "The target that is read. It is not changed." };
        Argument<string> to =
            new("to") { Description = "The target that is written. A file that is not there is made." };
        Option<bool> compare = new("--compare")
        {
            Description = "The file is there: read it too, and write only what "
            + "differs. So an interrupted conversion goes on, or a finished one is verified."
        };
        Option<string?> clusterSize = new(
            "--cluster-size")
        { Description = "The unit of allocation of a new qcow2 image, 4K to 2M. Default: 64K." };
        Command command = new(
            "convert",
            "Copy a disk from any target to any other. Zeros are left out where the other has none yet.") { from, to,
                compare, clusterSize };
        command.SetAction((arguments, _) => RunAsync(
            catalog.MakeForTools(),
            arguments.GetRequiredValue(from), arguments.GetRequiredValue(to), arguments.GetValue(compare),
            arguments.GetValue(clusterSize)));
        return command;
    }

    /// <summary>Copies a disk.</summary>
    /// <param name="catalog">All schemes.</param>
    /// <param name="fromText">The target that is read.</param>
    /// <param name="toText">The target that is written.</param>
    /// <param name="compares">True if it is there, and only what differs is written.</param>
    /// <param name="clusterText">The cluster size of a new image; null for the default.</param>
    /// <param name="remedy">What to do when the copy fails.</param>
    /// <exception cref="CommandException">It was not copied as a whole.</exception>
    public static async Task<int> RunAsync(
        BlockCatalog catalog, string fromText, string toText, bool compares, string? clusterText,
        string remedy = "go on with --compare")
    {
        BlockTarget to = BlockTarget.Parse(toText);
        using Worker worker = new("convert");
        IBlockImage source = catalog.Open(
            BlockTarget.Parse(fromText), ToolOpening.For("ublkback image convert", isReadOnly: true));
        await using (source.ConfigureAwait(false))
        {
            long size = (long)source.Geometry.SectorCount * BlockRequest.SectorSize;
            bool isNew = !compares;
            if (isNew)
                SchemeTool.Create(
                    catalog, to, new NewImage(size, clusterText is null ? null : ByteSize.Read(clusterText))
                    {
                        IsUnfinished = true,
                    });
            IBlockImage copy = catalog.Open(
                to, ToolOpening.For("ublkback image convert", isReadOnly: false) with { OpensUnfinished = true });
            await using (copy.ConfigureAwait(false))
            {
                if (copy.Geometry.SectorCount != source.Geometry.SectorCount)
                    throw new CommandException($"{fromText} has {source.Geometry.SectorCount} sectors and "
                        + $"{toText} has {copy.Geometry.SectorCount}: they must be as large");
                await CopyAsync(worker, source, copy, isNew, fromText, toText, size, remedy).ConfigureAwait(false);
            }
        }

        return 0;
    }

    private static async Task CopyAsync(
        Worker worker, IBlockImage source, IBlockImage copy, bool isNew, string fromText, string toText, long size,
        string remedy)
    {
        (BlockStatus status, long written) = await CopyProgress.ShowAsync(toText, size, onProgress =>
        {
            Converter converter = new(source, copy, isNew, !isNew, onProgress);
            return worker.InvokeAsync(async () => (await converter.RunAsync(), converter.Written));
        }).ConfigureAwait(false);
        if (status != BlockStatus.Okay)
            throw new CommandException(
                $"{fromText} was not copied as a whole ({status}): what failed is said above; {remedy}");
        if (copy is IUnfinishedImage unfinished)
            await worker.InvokeAsync(async () =>
            {
                await unfinished.FinishAsync();
                return true;
            }).ConfigureAwait(false);
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"{Reports.Size((ulong)size)} {(isNew ? "copied" : "compared")}, {Reports.Size((ulong)written)} "
            + $"{(isNew ? "written" : "differed and were written")}"));
    }
}
