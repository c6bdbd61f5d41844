using System.CommandLine;
using Ublkback.Commands.Disks;
using Ublkback.Hosting;
using Ublkback.Service;

namespace Ublkback.Commands;

/// <summary><c>ublkback daemon</c></summary>
internal static class DaemonCommand
{
    public static Command Make(CatalogMaker catalog)
    {
        Option<string> host = CommonOptions.Host();
        Command command =
            new("daemon", "Serve the disks of all guests, in the foreground; logs go to standard error.") { host };
        command.SetAction((arguments, _) =>
        {
            HostEnvironment environment = HostEnvironment.Parse(arguments.GetRequiredValue(host));
            return LongRun.RunAsync((logger, stopping) =>
                new Daemon(environment, catalog, ControlCommands.All, logger).RunAsync(stopping));
        });
        return command;
    }
}
