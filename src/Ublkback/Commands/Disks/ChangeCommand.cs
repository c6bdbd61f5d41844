using System.CommandLine;
using Ublkback.Control;
using Ublkback.Hosting;

namespace Ublkback.Commands.Disks;

/// <summary><c>ublkback change</c></summary>
internal static class ChangeCommand
{
    public static Command Make()
    {
        Option<string> host = CommonOptions.Host();
        Argument<int> domid = new("domid") { Description = "The guest." };
        Argument<string> device = new("device") { Description = "The disk's name in the guest, such as xvda." };
        Argument<string> hook = new("hook") { Description = "The hook, with the arguments to change." };
        Command command = new(
            "change",
            """
            Change arguments of a hook while its disk is used. What is not named stays as it is.

            It holds until the disk is attached again, or another daemon takes over: then the target's arguments do.

            Example:
              ublkback change 3 xvda "throttle(iops=500)"
            """)
        {
            host, domid, device, hook,
        };
        command.SetAction(async (arguments, _) =>
        {
            ControlRequest request = new(
                "change", Domid: arguments.GetValue(domid), Device: arguments.GetRequiredValue(device),
                Hook: arguments.GetRequiredValue(hook));
            IReadOnlyList<VbdReport> vbds = await DiskCommands.AskAsync(
                HostEnvironment.Parse(arguments.GetRequiredValue(host)), request).ConfigureAwait(false);
            foreach (VbdReport vbd in vbds) Console.WriteLine($"guest {vbd.Domid} {vbd.Device}: {request.Hook}");
            return 0;
        });
        return command;
    }
}
