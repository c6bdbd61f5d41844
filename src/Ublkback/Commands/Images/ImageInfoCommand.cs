using System.CommandLine;
using System.Text.Json;
using System.Text.Json.Serialization;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.Images.Qcow2;
using Ublkback.Images.Qcow2.Format;

namespace Ublkback.Commands.Images;

/// <summary><c>ublkback image info</c></summary>
internal static class ImageInfoCommand
{
    public static Command Make()
    {
        Argument<string> target = new("target") { Description = "The image: qcow2:/path." };
        Option<bool> json = CommonOptions.Json();
        Command command =
            new("info", "Show what a qcow2 image says of itself, whether or not a guest uses it.") { target, json };
        command.SetAction(arguments => Run(arguments.GetRequiredValue(target), arguments.GetValue(json)));
        return command;
    }

    private static int Run(string text, bool asJson)
    {
        try
        {
            Qcow2Info info = Qcow2Tool.Read(PathOf(text));
            if (asJson) Console.WriteLine(JsonSerializer.Serialize(info, ImageJson.Default.Qcow2Info));
            else Show(info);
            return 0;
        }
        catch (TargetException failure)
        {
            throw new CommandException(failure.Message);
        }
    }

    /// <summary>The path of a target that must be a qcow2 image without hooks.</summary>
    /// <exception cref="TargetException">It is something else.</exception>
    public static string PathOf(string text)
    {
        BlockTarget target = BlockTarget.Parse(text);
        return target.Scheme == Qcow2Opener.Scheme && target.Hooks.Count == 0
            ? target.Location
            : throw new TargetException($"{text} is no qcow2 image by its name: give {Qcow2Opener.Scheme}:/path");
    }

    private static void Show(Qcow2Info info)
    {
        Console.WriteLine($"format: qcow2 version {info.Version}");
        Console.WriteLine($"disk: {Reports.Size((ulong)info.VirtualSize)} ({info.VirtualSize} bytes)");
        Console.WriteLine($"file: {Reports.Size((ulong)info.FileSize)}");
        Console.WriteLine(
            $"clusters: {Reports.Size((ulong)info.ClusterSize)}, reference counts of {info.RefcountBits} bits");
        if (info.BackingFile is not null)
            Console.WriteLine($"over: {info.BackingFile} ({info.BackingFormat ?? "of a format it does not say"})");
        if (info.Snapshots > 0) Console.WriteLine($"internal snapshots: {info.Snapshots}");
        if (info.IsDirty) Console.WriteLine("dirty: it is in use, or was not closed by who wrote it last");
        if (info.IsCorrupt) Console.WriteLine("broken: repair it with 'ublkback image check --repair'");
    }
}

/// <summary>How the image commands' reports are written as JSON.</summary>
[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(Qcow2Info))]
[JsonSerializable(typeof(Qcow2CheckReport))]
[JsonSerializable(typeof(List<ImageMapEntry>))]
internal sealed partial class ImageJson : JsonSerializerContext;
