using System.CommandLine;
using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;

namespace Ublkback.Commands;

/// <summary><c>ublkback daemon</c></summary>
internal static class DaemonCommand
{
    public static Command Make(CatalogMaker catalog)
    {
        Option<string> host = CommonOptions.Host();
        Command command = new("daemon", "Serve the disks of all guests, in the foreground; logs go to standard error.") { host };
        command.SetAction((arguments, _) => RunAsync(HostEnvironment.Parse(arguments.GetRequiredValue(host)), catalog));
        return command;
    }

    private static async Task<int> RunAsync(HostEnvironment host, CatalogMaker catalog)
    {
        using ILoggerFactory loggers = LoggerFactory.Create(builder => builder
            .AddConsole(options =>
            {
                options.FormatterName = LineFormatter.FormatterName;
                options.LogToStandardErrorThreshold = LogLevel.Trace;
            })
            .AddConsoleFormatter<LineFormatter, Microsoft.Extensions.Logging.Console.ConsoleFormatterOptions>());
        using CancellationTokenSource stopping = new();
        using PosixSignalRegistration term = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
        using PosixSignalRegistration interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop);
        await new Daemon(host, catalog, loggers.CreateLogger("ublkback")).RunAsync(stopping.Token).ConfigureAwait(false);
        return 0;

        void Stop(PosixSignalContext signal)
        {
            signal.Cancel = true; // the daemon ends by itself, in order
            stopping.Cancel();
        }
    }
}
