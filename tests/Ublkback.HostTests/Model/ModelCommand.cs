using System.Diagnostics;

namespace Ublkback.HostTests.Model;

/// <summary>A command of the program, which may be killed.</summary>
internal sealed class ModelCommand(string program, string store, params string[] arguments)
{
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(2);

    private Process? _process;

    /// <summary>True if it was killed before it ended.</summary>
    public bool IsKilled { get; private set; }

    /// <summary>What it said last.</summary>
    public string Output { get; private set; } = "";

    /// <summary>Runs it; returns true if it did what it was asked for.</summary>
    public async Task<bool> RunAsync()
    {
        IsKilled = false;
        using Process process = Process.Start(
            new ProcessStartInfo(program, ["vdi", .. arguments, "--store", store])
            {
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            })!;
        _process = process;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        Output = await process.StandardOutput.ReadToEndAsync().WaitAsync(Patience);
        await process.WaitForExitAsync().WaitAsync(Patience);
        _process = null;
        Output += await errors;
        return process.ExitCode == 0;
    }

    /// <summary>Kills it, if it runs.</summary>
    public bool TryKill()
    {
        try
        {
            if (_process is not { HasExited: false } process) return false;
            IsKilled = true;
            process.Kill();
            return true;
        }
        catch (InvalidOperationException)
        {
            return false; // it has just ended
        }
    }

    public override string ToString() => string.Join(' ', arguments);
}
