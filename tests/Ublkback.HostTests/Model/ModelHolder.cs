using System.Diagnostics;

namespace Ublkback.HostTests.Model;

/// <summary>A process that serves a VDI by NBD (<c>ublkback export</c>), and its only client.</summary>
internal sealed class ModelHolder : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly Process _process;

    private ModelHolder(Process process, NbdClient client)
    {
        _process = process;
        Client = client;
    }

    public NbdClient Client { get; }

    /// <summary>True if it was killed or stopped for good.</summary>
    public bool IsDead { get; private set; }

    /// <summary>Starts it. Repeats that while the process says that another one still has the VDI.</summary>
    /// <param name="program">The program.</param>
    /// <param name="target">The VDI.</param>
    /// <param name="socket">The path of a new socket.</param>
    /// <param name="onRefusal">Takes what it is refused by; null if it must not be.</param>
    public static async Task<ModelHolder> StartAsync(
        string program, string target, string socket, Action<string>? onRefusal)
    {
        long began = Stopwatch.GetTimestamp();
        while (true)
        {
            Process process = Start(program, target, socket);
            string? line = await process.StandardOutput.ReadLineAsync().WaitAsync(Patience);
            if (line?.StartsWith("ready:", StringComparison.Ordinal) == true)
            {
                // What it says later is of no interest, and must not fill the pipe.
                process.ErrorDataReceived += (_, _) => { };
                process.BeginErrorReadLine();
                return new ModelHolder(process, await NbdClient.ConnectAsync(socket));
            }

            string refusal = await process.StandardError.ReadToEndAsync();
            await process.WaitForExitAsync().WaitAsync(Patience);
            process.Dispose();
            bool isWaitedFor = refusal.Contains("in use", StringComparison.Ordinal)
                || refusal.Contains("try again", StringComparison.Ordinal);
            if (onRefusal is null || !isWaitedFor || Stopwatch.GetElapsedTime(began) > Patience)
                throw new ModelException($"{target} cannot be opened: {refusal}");
            onRefusal(refusal);
        }
    }

    /// <summary>Starts it, and kills it after a time.</summary>
    public static async Task StartAndKillAsync(string program, string target, string socket, int delayMs)
    {
        using Process process = Start(program, target, socket);
        await Task.Delay(delayMs); // any moment
        process.Kill();
        await process.WaitForExitAsync();
    }

    /// <summary>Kills it.</summary>
    public async Task KillAsync()
    {
        IsDead = true;
        _process.Kill();
        await _process.WaitForExitAsync();
    }

    /// <summary>Ends it in the regular way.</summary>
    public async Task CloseAsync()
    {
        IsDead = true;
        await SignalAsync("TERM");
        await _process.WaitForExitAsync().WaitAsync(Patience);
    }

    /// <summary>Sends a signal.</summary>
    public async Task SignalAsync(string signal)
    {
        using Process kill = Process.Start("kill", [$"-{signal}", $"{_process.Id}"])!;
        await kill.WaitForExitAsync();
    }

    /// <summary>Reads the whole disk.</summary>
    public async Task<long[]> ReadAllAsync()
    {
        byte[] data = new byte[Client.Sectors * SectorPattern.Size];
        const int Piece = 256 << 10;
        for (int at = 0; at < data.Length; at += Piece)
        {
            NbdResult result = await Client.ReadAsync(
                at / SectorPattern.Size, data.AsMemory(at, Math.Min(Piece, data.Length - at))).WaitAsync(Patience);
            if (result != NbdResult.Done) throw new ModelException($"a read failed: {result}");
        }

        return SectorPattern.Read(data);
    }

    private static Process Start(string program, string target, string socket) =>
        Process.Start(new ProcessStartInfo(program, ["export", target, "--unix", socket])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited) _process.Kill();
        await _process.WaitForExitAsync();
        Client.Dispose();
        _process.Dispose();
    }
}
