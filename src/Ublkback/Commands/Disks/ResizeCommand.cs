using System.CommandLine;
using System.Text.Json.Serialization;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hosting;

namespace Ublkback.Commands.Disks;

/// <summary>Enlarges a disk, or measures images again, and tells the guests.</summary>
/// <param name="Domid">The guest; null for all guests.</param>
/// <param name="Device">The disk's name in the guest, such as xvda; null for all its disks.</param>
/// <param name="SizeBytes">The new size; null to measure the image.</param>
internal sealed record ResizeRequest(int? Domid = null, string? Device = null, long? SizeBytes = null)
    : ControlRequest("resize");

/// <summary><c>ublkback resize</c></summary>
internal static class ResizeCommand
{
    public static readonly ControlCommand<ResizeRequest, VbdsReply> Control = new(
        "resize", ResizeJson.Default.ResizeRequest, ReplyJson.Default.VbdsReply, AnswerAsync)
    {
        CommandLine = Make,
    };

    private static readonly TimeSpan Timeout = TimeSpan.FromSeconds(10);

    private static async Task<VbdsReply> AnswerAsync(ResizeRequest request, ControlServices services)
    {
        Task resized = Task.WhenAll(services.Choose(request.Domid, request.Device).Select(
            vbd => request.SizeBytes is long size ? vbd.EnlargeAsync(size) : vbd.MeasureAsync()));
        try
        {
            await resized.WaitAsync(Timeout).ConfigureAwait(false);
        }
        catch (TimeoutException failure)
        {
            throw new CommandException(
                "a disk has not answered for 10 s", "see its state in 'ublkback list'", failure);
        }

        return services.Report(request.Domid, request.Device);
    }

    private static Command Make()
    {
        Option<string?> size = new("--size")
        {
            Description =
            "Have the daemon make the disk so large, such as 20G. It cannot shrink while it is used."
        };
        Command command = DiskCommands.Make(
            Control,
            """
            Make a disk larger while it is used, or look at the sizes of images again, and tell the guests.

            Without --size: after a file or device has grown or shrunk by other means. A disk in use notices that by
            itself within about a second; this is for idle ones.

            Examples:
              ublkback resize 3 xvda --size 20G
              truncate --size=20G /images/disk.img && ublkback resize 3 xvda
            """,
            (domid, device, arguments) =>
                new ResizeRequest(domid, device, ReadSize(arguments.GetValue(size), domid, device)),
            vbd => Reports.Size(vbd.SizeBytes));
        command.Add(size);
        return command;
    }

    private static long? ReadSize(string? text, int? domid, string? device)
    {
        if (text is null) return null;
        if (domid is null || device is null)
            throw new CommandException(
                "which disk is to have that size? Give guest and device, as in 'ublkback resize 3 xvda --size 20G'");
        return ByteSize.Read(text);
    }
}

/// <summary>How requests are written and read.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(ResizeRequest))]
internal sealed partial class ResizeJson : JsonSerializerContext;
