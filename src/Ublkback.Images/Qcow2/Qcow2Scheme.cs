using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;
using Ublkback.Images.Qcow2.Metadata;
using Ublkback.Images.Raw;
using Ublkback.Linux.Workers;

namespace Ublkback.Images.Qcow2;

/// <summary>The scheme of qcow2 images, with all that tools can do with them.</summary>
public static class Qcow2Scheme
{
    /// <summary>Creates the scheme for a catalog, which opens backing images.</summary>
    public static ImageScheme For(BlockCatalog catalog) => new(Qcow2Opener.Scheme, new Qcow2Opener(catalog).Open)
    {
        Example = $"{Qcow2Opener.Scheme}:/path",
        HasMap = true,
        Create = (target, image) => Create(catalog, target, image),
        Describe = Describe,
        CheckAsync = CheckAsync,
        Overlay = new OverlayScheme(
            target => target.WithDefault(Qcow2Opener.BackingOption, "allow"),
            target => new BlockTarget([], target.Scheme, target.Location, new Dictionary<string, string>())
                .WithDefault(Qcow2Opener.BackingOption, Qcow2Opener.NoBacking),
            new Qcow2Opener(catalog).FindBacking),
    };

    /// <summary>
    /// Begins to remove the logs that images left whose files are gone. Returns at once. Any thread.
    /// </summary>
    /// <param name="stateFolder">Where images keep their logs.</param>
    /// <param name="warn">Takes sentences for the log, on any thread.</param>
    public static void RemoveOrphanLogsSoon(string stateFolder, Action<string> warn) =>
        MetadataLogOrphans.RemoveSoon(stateFolder, warn);

    private static void Create(BlockCatalog catalog, BlockTarget target, NewImage image) => Qcow2Tool.Create(
        NewFile.PathOf(target), image.Size,
        (int)Math.Min(image.ClusterSize ?? Qcow2Tool.DefaultClusterSize, int.MaxValue),
        image.Backing is null ? null : NameOf(catalog, image.Backing));

    // QEMU reads files and URIs. Other backing images can be read by this program only.
    private static (string Name, string Format) NameOf(BlockCatalog catalog, BlockTarget backing)
    {
        if (backing.Hooks.Count > 0) throw new TargetException("a backing image cannot have hooks");
        return backing.Scheme switch
        {
            BlockTarget.RawScheme => (backing.Location, "raw"), // as it is: '..' may follow a symbolic link
            Qcow2Opener.Scheme => (backing.Location, Qcow2Opener.Scheme),
            _ => (catalog.Find(backing).FindUri(backing) ?? TextOf(backing), "raw"),
        };
    }

    private static string TextOf(BlockTarget target)
    {
        string options = string.Join('&', target.Options.Select(option => $"{option.Key}={option.Value}"));
        return $"{target.Scheme}:{target.Location}{(options.Length == 0 ? "" : "?")}{options}";
    }

    private static ImageReport Describe(BlockTarget target)
    {
        Qcow2Info info = Qcow2Tool.Read(target.Location);
        List<string> lines =
        [
            $"format: qcow2 version {info.Version}",
            $"disk: {ByteSize.Format((ulong)info.VirtualSize)} ({info.VirtualSize} bytes)",
            $"file: {ByteSize.Format((ulong)info.FileSize)}",
            $"clusters: {ByteSize.Format((ulong)info.ClusterSize)}, reference counts of {info.RefcountBits} bits",
        ];
        if (info.BackingFile is not null)
            lines.Add($"over: {info.BackingFile} ({info.BackingFormat ?? "of a format it does not say"})");
        if (info.Snapshots > 0) lines.Add($"internal snapshots: {info.Snapshots}");
        if (info.IsDirty) lines.Add("dirty: it is in use, or was not closed by who wrote it last");
        if (info.IsCorrupt) lines.Add("broken: repair it with 'ublkback image check --repair'");
        return new ImageReport(lines, JsonSerializer.Serialize(info, Qcow2Json.Default.Qcow2Info));
    }

    private static async Task<ImageReport> CheckAsync(BlockTarget target, bool repair, ImageOpening opening)
    {
        string path = target.Location;
        List<string> lines = [];
        (bool hasChanges, bool isCorrupt, bool isIncomplete) = Qcow2Tool.FindChangesOutside(path, opening);
        if (hasChanges && isCorrupt)
        {
            lines.Add(
                "changes that a killed daemon left "
                + $"{(repair ? "were given up" : "will be lost by --repair")}: the tables are broken");
        }
        else if (hasChanges)
        {
            if (!repair)
                throw new TargetException($"{path} was left by a killed daemon, which had changes of it that "
                    + "are not in the file yet: bring them there with --repair, or attach it again");
            await FinishAsync(path, opening).ConfigureAwait(false);
            lines.Add("changes that a killed daemon left were brought into the file");
        }

        if (isIncomplete)
            lines.Add("it was in use when its daemon or its host ended: what was written after the last flush may be "
                + "missing");
        Qcow2CheckReport report = Qcow2Tool.Check(path, repair, opening);
        AddLines(lines, report, repair);
        return new ImageReport(
            lines, JsonSerializer.Serialize(report, Qcow2Json.Default.Qcow2CheckReport),
            report.Unrepairable.Count == 0 && (repair || report.Repairable.Count == 0));
    }

    private static async Task FinishAsync(string path, ImageOpening opening)
    {
        using Worker worker = new("check");
        BlockRequest flush = new() { Operation = BlockOperation.Flush };
        IBlockImage image = new Qcow2Opener(new BlockCatalog()).OpenToFinish(path, opening);
        await using (image.ConfigureAwait(false))
        {
            BlockStatus status = await worker.InvokeAsync(() => image.HandleAsync(flush).AsTask())
                .ConfigureAwait(false);
            if (status != BlockStatus.Okay)
                throw new TargetException(
                    $"changes that a killed daemon left could not be brought into {path}: {status}");
        }
    }

    private static void AddLines(List<string> lines, Qcow2CheckReport report, bool repair)
    {
        lines.AddRange(report.Unrepairable.Select(message => $"cannot be repaired: {message}"));
        lines.AddRange(report.Repairable);
        lines.Add(string.Create(
            CultureInfo.InvariantCulture,
            $"{report.Allocated} of {report.Total} clusters are in the image, {report.Compressed} of them "
            + $"compressed; it ends at {ByteSize.Format((ulong)report.EndOffset)}"));
        string counts = string.Create(CultureInfo.InvariantCulture, $"{report.Leaks} leaks, {report.Errors} errors");
        lines.Add((report.Leaks + report.Errors + report.Unrepairable.Count, report.Unrepairable.Count, repair) switch
        {
            (0, _, _) => "it is in order",
            (_, > 0, _) => "nothing was changed: restore it from a backup, or save what can be read with "
                + "'ublkback image convert'",
            (_, _, true) => $"repaired: {counts}",
            _ => $"{counts}: mend them with --repair",
        });
    }
}

/// <summary>How reports on qcow2 images are written as JSON.</summary>
[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(Qcow2Info))]
[JsonSerializable(typeof(Qcow2CheckReport))]
internal sealed partial class Qcow2Json : JsonSerializerContext;
