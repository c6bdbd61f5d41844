using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using Spectre.Console;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.ImageTools;
using Ublkback.Linux.Workers;

namespace Ublkback.Commands.Images;

/// <summary>A line of <c>ublkback image map</c>, with the words of <c>qemu-img map --output=json</c>.</summary>
/// <param name="Start">The first byte of the disk.</param>
/// <param name="Length">How many bytes.</param>
/// <param name="Depth">In which image of the chain: 0 is the topmost.</param>
/// <param name="Present">Whether that image says something of them.</param>
/// <param name="Zero">Whether they are known to be zeros.</param>
/// <param name="Data">Whether they are kept as data.</param>
/// <param name="Offset">Where, in that image's file.</param>
internal sealed record ImageMapEntry(
    long Start, long Length, int Depth, bool Present, bool Zero, bool Data, long? Offset);

/// <summary><c>ublkback image map</c></summary>
internal static class ImageMapCommand
{
    public static Command Make(CatalogMaker catalog)
    {
        Argument<string> target =
            new("target") { Description = "The image: /path or qcow2:/path. No guest may be writing it." };
        Option<bool> json = CommonOptions.Json();
        Command command = new(
            "map",
            "Show where the parts of a disk are kept: in which image of its chain, and where in the file.") { target,
                json };
        command.SetAction((arguments, _) => RunAsync(
            catalog.MakeForTools(),
            arguments.GetRequiredValue(target), arguments.GetValue(json)));
        return command;
    }

    private static async Task<int> RunAsync(BlockCatalog catalog, string text, bool asJson)
    {
        BlockTarget target = BlockTarget.Parse(text);
        using Worker worker = new("map");
        IBlockImage image = catalog.Open(target, ToolOpening.For("ublkback image map", isReadOnly: true));
        await using (image.ConfigureAwait(false))
        {
            if (image is not IAllocationMap mapped)
                throw new CommandException(
                    $"{text} does not tell where its parts are: "
                    + $"{catalog.Examples(scheme => scheme.HasMap)} does, without hooks");
            List<ImageMapEntry> entries = await worker.InvokeAsync(() => ReadAsync(mapped, text))
                .ConfigureAwait(false);
            if (asJson)
                Console.WriteLine(JsonSerializer.Serialize(entries, ImageMapJson.Default.ListImageMapEntry));
            else Show(entries);
        }

        return 0;
    }

    private static async Task<List<ImageMapEntry>> ReadAsync(IAllocationMap image, string text)
    {
        List<ImageMapEntry> entries = [];
        for (ulong sector = 0; sector < image.Geometry.SectorCount;)
        {
            SectorRange range = await image.MapAsync(sector, (long)(image.Geometry.SectorCount - sector));
            if (range.Status != BlockStatus.Okay || range.SectorCount == 0)
                throw new CommandException($"{text} cannot be read at sector {sector}");
            ImageMapEntry entry = new(
                (long)sector * BlockRequest.SectorSize, range.SectorCount * BlockRequest.SectorSize, range.Depth,
                range.IsPresent, range.IsZero,
                !range.IsZero, range.Offset);
            if (entries.Count > 0 && Follows(entries[^1], entry))
                entries[^1] = entries[^1] with { Length = entries[^1].Length + entry.Length };
            else entries.Add(entry);
            sector += (ulong)range.SectorCount;
        }

        return entries;
    }

    private static bool Follows(ImageMapEntry before, ImageMapEntry entry) =>
        before with { Start = entry.Start, Length = entry.Length, Offset = before.Offset + before.Length } == entry;

    private static void Show(List<ImageMapEntry> entries)
    {
        Table table = Reports.Table("Start", "Length", "Image", "Kept as", "Offset in its file");
        foreach (ImageMapEntry entry in entries)
        {
            string kept = entry.Data
                ? entry.Offset is null ? "compressed data" : "data"
                : entry.Present ? "zeros" : "nothing";
            table.AddRow(
                entry.Start.ToString("N0", CultureInfo.InvariantCulture), Reports.Size((ulong)entry.Length),
                entry.Depth.ToString(CultureInfo.InvariantCulture), kept,
                entry.Offset?.ToString("N0", CultureInfo.InvariantCulture) ?? "-");
        }

        AnsiConsole.Write(table);
    }
}

/// <summary>How the map is written as JSON.</summary>
[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(List<ImageMapEntry>))]
internal sealed partial class ImageMapJson : JsonSerializerContext;
