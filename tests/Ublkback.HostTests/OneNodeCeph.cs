using System.Diagnostics;
using System.Globalization;
using NUnit.Framework;
using Ublkback.HostTests.Fixtures;

namespace Ublkback.HostTests;

/// <summary>A Ceph of one monitor and one OSD on this host, which is started when the first test asks for it.</summary>
[SetUpFixture]
public sealed class OneNodeCeph
{
    private const int FirstPort = 16800; // and up to 31800: below those that Linux gives to clients
    private const int Ports = 100; // of each that runs at the same time

    private static readonly string Folder = Directory.CreateTempSubdirectory("ublkback-ceph-").FullName;
    private static readonly Lazy<Task<string>> Started = new(StartAsync);
    private static int _pools;
    private static string? _pool; // of the test before

    /// <summary>The path of its configuration.</summary>
    public static string Configuration => Path.Combine(Folder, "client.conf");

    /// <summary>Makes a pool for a test, and deletes that of the test before; gives its name.</summary>
    public static async Task<string> MakePoolAsync()
    {
        await Started.Value;
        if (_pool is not null)
            await RunToolAsync("ceph", "osd", "pool", "rm", _pool, _pool, "--yes-i-really-really-mean-it");
        _pool = $"vdi{++_pools}";
        await RunAsync("pool", Folder, _pool);
        return _pool;
    }

    /// <summary>Ends the OSD as a loss of power does, and starts it again.</summary>
    public static async Task RestartOsdAsync()
    {
        await RunAsync("kill-osd", Folder);
        await RunAsync("start-osd", Folder);
    }

    /// <summary>Has the OSD take itself for full, or no longer.</summary>
    public static async Task SetFullAsync(bool isFull)
    {
        foreach (string ratio in new[] { "nearfull", "backfillfull", "full" })
            await RunToolAsync("ceph", "osd", $"set-{ratio}-ratio", isFull ? "0.0001" : "0.95");
    }

    /// <summary>Runs a program of Ceph, which must not fail; gives what it says.</summary>
    public static Task<string> RunToolAsync(string program, params string[] arguments) =>
        RunProgramAsync(program, ["-c", Configuration, .. arguments]);

    [OneTimeTearDown]
    public async Task StopAsync()
    {
        if (Started.IsValueCreated) await RunAsync("stop", Folder);
        Directory.Delete(Folder, recursive: true);
    }

    private static Task<string> StartAsync()
    {
        int port = FirstPort + (Environment.ProcessId % 150 * Ports);
        return RunAsync("start", Folder, port.ToString(CultureInfo.InvariantCulture));
    }

    private static Task<string> RunAsync(string command, params string[] arguments) =>
        RunProgramAsync(Path.Combine(HostFixture.FindRoot(), "tests", "ceph", "one-node"), [command, .. arguments]);

    private static async Task<string> RunProgramAsync(string program, string[] arguments)
    {
        TimeSpan limit = TimeSpan.FromMinutes(2);
        string log = Path.Combine(Folder, "tools.log");
        // What goes on in the background keeps its outputs, so these are a file.
        using Process process = Process.Start(
            "sh", ["-c", "log=$1; shift; exec \"$@\" >>\"$log\" 2>&1", "sh", log, program, .. arguments]);
        await process.WaitForExitAsync().WaitAsync(limit);
        string said = await File.ReadAllTextAsync(log);
        Assert.That(process.ExitCode, Is.Zero, $"{program} {string.Join(' ', arguments)}: {said}");
        return said;
    }
}
