using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;

namespace Ublkback.Hosting;

/// <summary>Runs what goes on until it is told to end, by SIGTERM or SIGINT, with a log on standard error.</summary>
internal static class LongRun
{
    public static async Task<int> RunAsync(Func<ILogger, CancellationToken, Task> run)
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
        await run(loggers.CreateLogger("ublkback"), stopping.Token).ConfigureAwait(false);
        return 0;

        void Stop(PosixSignalContext signal)
        {
            signal.Cancel = true; // it ends by itself, in order
            stopping.Cancel();
        }
    }
}
