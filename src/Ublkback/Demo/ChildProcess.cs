using System.Diagnostics;
using Mono.Unix.Native;
using Ublkback.Hosting;

namespace Ublkback.Demo;

/// <summary>Another process of this program. Disposing ends it in order.</summary>
internal sealed class ChildProcess : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    private readonly Process _process;

    private ChildProcess(Process process) => _process = process;

    /// <summary>Path of this program, to start it again.</summary>
    public static string Program => Environment.ProcessPath
        ?? throw new CommandException("this program does not know its own path");

    /// <summary>What the process prints.</summary>
    public StreamReader Output => _process.StandardOutput;

    /// <summary>The process's number.</summary>
    public int Id => _process.Id;

    /// <summary>Starts this program with other arguments; what it says on standard error goes to a file.</summary>
    public static ChildProcess Start(
        string errorFile, IReadOnlyDictionary<string, string> environment, params string[] arguments)
    {
        ProcessStartInfo start =
            new("/bin/sh", ["-c", "exec \"$0\" \"$@\" 2>>\"$UBLKBACK_ERRORS\"", Program, .. arguments])
            {
                RedirectStandardOutput = true,
                RedirectStandardInput = true,
            };
        start.Environment["UBLKBACK_ERRORS"] = errorFile;
        foreach ((string name, string value) in environment) start.Environment[name] = value;
        return new ChildProcess(Process.Start(start) ?? throw new CommandException($"cannot start {Program}"));
    }

    /// <summary>Waits for its end.</summary>
    public async Task<int> WaitAsync()
    {
        await _process.WaitForExitAsync().ConfigureAwait(false);
        return _process.ExitCode;
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            _ = Syscall.kill(_process.Id, Signum.SIGTERM);
            using CancellationTokenSource limit = new(Patience);
            try
            {
                await _process.WaitForExitAsync(limit.Token).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                _process.Kill();
            }
        }

        _process.Dispose();
    }
}
