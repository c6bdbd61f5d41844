using System.CommandLine;
using Ublkback;
using Ublkback.Commands;
using Ublkback.Linux;

MonoPosixHelper.Register();

RootCommand root = new("""
    A user-level block backend for Xen: serves guests' disks from files and devices, without loop devices.

    Examples:
      ublkback doctor                     what is missing on this host, and how to mend it
      ublkback demo                       see it work, without Xen
      ublkback daemon                     serve all guests (systemd does this for you)
      ublkback list                       the disks being served
      ublkback stats --json               what they have done, for programs
      ublkback resize 3 xvda              tell guest 3 that its disk has grown
      ublkback bench --image /tmp/a.img   how fast it is here, without Xen

    In a guest's configuration:
      disk = [ 'vdev=xvda,format=raw,access=rw,script=block-ublkback,target=/images/disk.img' ]
    """)
{
    DaemonCommand.Make(),
    ListCommand.Make(),
    StatsCommand.Make(),
    ResizeCommand.Make(),
    ResumeCommand.Make(),
    ChangeCommand.Make(),
    BenchCommand.Make(),
    DoctorCommand.Make(),
    DemoCommand.Make(),
    XenHostCommand.Make(),
    HotplugCommand.Make(),
    DemoGuestCommand.Make(),
};

const int Failed = 1;
const int WrongUsage = 2;

ParseResult arguments = root.Parse(args);
if (arguments.Errors.Count > 0)
{
    Console.Error.WriteLine($"ublkback: {arguments.Errors[^1].Message.TrimEnd('.')}; see 'ublkback --help'");
    return WrongUsage;
}

try
{
    return await arguments.InvokeAsync(new InvocationConfiguration
    {
        EnableDefaultExceptionHandler = false,
        ProcessTerminationTimeout = null, // the commands that run long handle signals themselves
    });
}
catch (CommandException failure)
{
    Console.Error.WriteLine($"ublkback: {failure.Message}");
    return Failed;
}
