using System.CommandLine;
using Ublkback.Control;

namespace Ublkback.Commands;

/// <summary><c>ublkback resize</c></summary>
internal static class ResizeCommand
{
    public static Command Make()
    {
        Option<string> host = CommonOptions.Host();
        Argument<int?> domid = new("domid")
        {
            Description = "The guest; all guests when left out.",
            Arity = ArgumentArity.ZeroOrOne,
        };
        Argument<string?> device = new("device")
        {
            Description = "The disk's name in the guest, such as xvda; all its disks when left out.",
            Arity = ArgumentArity.ZeroOrOne,
        };
        Command command = new("resize", """
            Look at the sizes of images again and tell the guests, after a file or device has grown or shrunk.

            A disk that is in use notices by itself within about a second; this is for idle ones.

            Example:
              truncate --size=20G /images/disk.img && ublkback resize 3 xvda
            """)
        {
            host, domid, device,
        };
        command.SetAction((arguments, _) => RunAsync(
            HostEnvironment.Parse(arguments.GetRequiredValue(host)), arguments.GetValue(domid), arguments.GetValue(device)));
        return command;
    }

    private static async Task<int> RunAsync(HostEnvironment host, int? domid, string? device)
    {
        ControlRequest request = new("resize", Domid: domid, Device: device);
        IReadOnlyList<VbdReport> vbds = await Reports.AskAsync(host, request).ConfigureAwait(false);
        if (vbds.Count == 0) throw new CommandException("there is no such disk: 'ublkback list' shows those there are");
        foreach (VbdReport vbd in vbds)
            Console.WriteLine($"guest {vbd.Domid} {vbd.Device}, {vbd.Target}: {Reports.Size(vbd.SizeBytes)}");
        return 0;
    }
}
