using System.CommandLine;
using System.Net.Sockets;
using Ublkback.Block;
using Ublkback.Commands;
using Ublkback.Commands.Disks;
using Ublkback.Commands.Images;
using Ublkback.Commands.Vdis;
using Ublkback.Hosting;
using Ublkback.Linux.Kernel;

namespace Ublkback;

/// <summary>The program <c>ublkback</c>: the daemon and all commands.</summary>
public static class UblkbackProgram
{
    private const int Failed = 1;
    private const int WrongUsage = 2;

    /// <summary>
    /// Does what a command line says, and returns the exit status. A program of one's own calls this from its
    /// <c>main</c>, and is <c>ublkback</c> with more.
    /// </summary>
    /// <param name="args">The command line.</param>
    /// <param name="addOwn">Adds images and hooks of the program, which are trusted as those that come with it.</param>
    public static async Task<int> RunAsync(string[] args, Action<BlockCatalog>? addOwn = null)
    {
        MonoPosixHelper.Register();
        CatalogMaker catalog = new(addOwn);
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
            """);
        foreach (Command command in MakeCommands(catalog)) root.Add(command);

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
        catch (Exception failure)
            when (failure is UserException or IOException or UnauthorizedAccessException or SocketException)
        {
            Console.Error.WriteLine($"ublkback: {failure.Message}");
            return Failed;
        }
    }

    // The order is that of the help.
    private static IEnumerable<Command> MakeCommands(CatalogMaker catalog) =>
    [
        DaemonCommand.Make(catalog),
        .. ControlCommands.All.Select(command => command.CommandLine?.Invoke()).OfType<Command>(),
        ImageCommand.Make(catalog),
        VdiCommand.Make(catalog),
        ExportCommand.Make(catalog),
        ReplayCommand.Make(catalog),
        BenchCommand.Make(),
        DoctorCommand.Make(catalog),
        DemoCommand.Make(),
        XenHostCommand.Make(),
        HotplugCommand.Make(),
        DemoGuestCommand.Make(),
    ];
}
