using System.Diagnostics;
using System.Net.Sockets;
using System.Text.Json;
using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.XenStore;

namespace Ublkback.HostTests.Fixtures;

/// <summary>
/// An emulated host, a daemon and a toolstack, host and daemon being processes of their own; the test is the guest.
/// </summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public abstract class HostFixture
{
    protected const int Xvda = 51712;

    private readonly List<Process> _processes = [];
    private readonly List<IDisposable> _guests = [];
    private readonly List<Blkfront> _disks = [];
    protected static TimeSpan Soon { get; } = TimeSpan.FromSeconds(20);

    /// <summary>For what takes its time so that it is in nobody's way: collecting while a guest writes.</summary>
    private static TimeSpan InTheEnd { get; } = TimeSpan.FromMinutes(3);

    /// <summary>The program under test.</summary>
    protected static string Program { get; } = FindProgram();

    /// <summary>
    /// The most that removing a disk by force takes: 10 s until its state is Closed, and 5 s for the hotplug script.
    /// </summary>
    protected static TimeSpan ForcedDetach { get; } = TimeSpan.FromSeconds(16);

    protected static string Script { get; } = Path.Combine(FindRoot(), "scripts", "block-ublkback");

    protected string Scratch { get; } = Directory.CreateTempSubdirectory("ublkback-test-").FullName;

    protected HostLayout Layout => new(Path.Combine(Scratch, "host"));

    protected string DaemonLog => Path.Combine(Scratch, "daemon.log");

    /// <summary>
    /// Set by a test that leaves a disk which its daemon cannot release, such as one on stalled storage.
    /// </summary>
    protected bool KeepsDisks { get; set; }

    protected Process Host { get; private set; } = null!;

    protected Process Daemon { get; set; } = null!;

    protected XenStoreClient Store { get; private set; } = null!;

    protected Toolstack Toolstack { get; private set; } = null!;

    [SetUp]
    public async Task StartHost()
    {
        KeepsDisks = false;
        Host = Start(Program, [], "xen-host", Layout.Root);
        while (await Host.StandardOutput.ReadLineAsync().WaitAsync(Soon) is string line
            && !line.StartsWith("ready:", StringComparison.Ordinal)) { }
        Store = XenStoreClient.Open(new XenStoreTransport(Layout.StoreSocket));
        Toolstack = new Toolstack(Layout, Store, new Dictionary<string, string> { ["UBLKBACK"] = Program });
        Daemon = await StartDaemonAsync();
    }

    [TearDown]
    public async Task StopHost()
    {
        bool hasFailed =
            TestContext.CurrentContext.Result.Outcome.Status == NUnit.Framework.Interfaces.TestStatus.Failed;
        // Their threads read the guests' memory.
        foreach (Blkfront disk in _disks) await disk.DisposeAsync();
        foreach (IDisposable guest in _guests) guest.Dispose();
        string[] remains = hasFailed || Daemon.HasExited || KeepsDisks
            ? []
            : await new LeakCheck(Layout, Store, Daemon.Id, Scratch).RemoveDisksAndFindLeaksAsync();
        if (hasFailed || remains.Length > 0) TestContext.Out.WriteLine(await File.ReadAllTextAsync(DaemonLog));
        await Store.DisposeAsync();
        foreach (Process process in _processes.Where(process => !process.HasExited)) process.Kill();
        foreach (Process process in _processes)
        {
            await process.WaitForExitAsync();
            process.Dispose();
        }

        Directory.Delete(Scratch, recursive: true);
        Assert.That(remains, Is.Empty, "what the daemon still holds when all disks are gone");
    }

    /// <summary>Starts a daemon and does not wait for it; another build of the program, perhaps.</summary>
    protected Process StartDaemon(string? program = null, Dictionary<string, string>? environment = null) =>
        Start(program ?? Program, environment ?? [], "daemon", "--host", Layout.Root);

    /// <summary>Starts a daemon and waits until it says that it is ready.</summary>
    protected async Task<Process> StartDaemonAsync()
    {
        string path = Path.Combine(Scratch, "notify");
        File.Delete(path);
        using Socket socket = new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        socket.Bind(new UnixDomainSocketEndPoint(path));
        Process daemon = StartDaemon(environment: new() { ["NOTIFY_SOCKET"] = path });
        await socket.ReceiveAsync(new byte[64], new CancellationTokenSource(Soon).Token);
        return daemon;
    }

    /// <summary>Ends the daemon as systemd does.</summary>
    protected async Task StopDaemonAsync()
    {
        await SignalAsync(Daemon, "TERM");
        await Daemon.WaitForExitAsync().WaitAsync(Soon);
    }

    /// <summary>Ends the daemon as lack of memory does.</summary>
    protected async Task KillAsync()
    {
        Daemon.Kill();
        await Daemon.WaitForExitAsync().WaitAsync(Soon);
    }

    /// <summary>Daemons die and are replaced while a disk is written and read back.</summary>
    protected async Task KillDaemonsUnderAsync(Blkfront disk)
    {
        VerifyingWrites writes = new(disk);
        for (int kill = 0; kill < 5; kill++)
        {
            Task running = writes.RunAsync(50);
            await KillAsync();
            Daemon = StartDaemon();
            await running.WaitAsync(Soon);
        }
    }

    protected static async Task SignalAsync(Process process, string signal)
    {
        using Process kill = Process.Start("kill", [$"-{signal}", $"{process.Id}"])!;
        await kill.WaitForExitAsync();
    }

    /// <summary>Runs a command of the program on the host to its end.</summary>
    protected async Task<(int Status, string Output, string Errors)> RunAsync(params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(Program, arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            Environment = { ["UBLKBACK_HOST"] = Layout.Root },
        })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = await process.StandardOutput.ReadToEndAsync().WaitAsync(InTheEnd);
        await process.WaitForExitAsync().WaitAsync(Soon);
        return (process.ExitCode, output, await errors);
    }

    /// <summary>Runs another program to its end: its status, a colon, and all that it said.</summary>
    protected static async Task<string> RunOtherAsync(string program, params string[] arguments)
    {
        using Process process = Process.Start(
            new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = await process.StandardOutput.ReadToEndAsync().WaitAsync(TimeSpan.FromSeconds(60));
        await process.WaitForExitAsync();
        return $"{process.ExitCode}:{output}{await errors}";
    }

    /// <summary>What a command says of the only disk.</summary>
    protected async Task<JsonElement> VbdAsync(string command)
    {
        (_, string json, _) = await RunAsync(command, "--json", "--host", Layout.Root);
        return JsonDocument.Parse(json).RootElement[0];
    }

    /// <summary>A small file system in memory, for the caller to unmount; gives its folder.</summary>
    protected async Task<string> MountSmallAsync(string size)
    {
        string directory = Path.Combine(Scratch, "full");
        Directory.CreateDirectory(directory);
        Assert.That(
            await RunOtherAsync("mount", "-t", "tmpfs", "-o", $"size={size}", "full", directory), Does.StartWith("0:"),
            "needs root");
        return directory;
    }

    protected string MakeImage(string name, long length = 8 << 20)
    {
        string path = Path.Combine(Scratch, name);
        using FileStream file = File.Create(path);
        file.SetLength(length);
        return path;
    }

    protected static DiskConfiguration Disk(
        string target, bool isWritable = true, int deviceId = Xvda, string kind = "vbd") =>
        new(deviceId, target, Script, isWritable, kind);

    protected async Task<EmulatedGuest> MakeGuestAsync(int domid, string? vm = null)
    {
        await Toolstack.CreateDomainAsync(domid, vm);
        EmulatedGuest guest = new(Layout, domid);
        _guests.Add(guest);
        return guest;
    }

    protected async Task<Blkfront> ConnectAsync(
        EmulatedGuest guest, int deviceId = Xvda, BlkfrontOptions? options = null)
    {
        Blkfront disk = await Blkfront.ConnectAsync(
            guest, Store, deviceId, options ?? new BlkfrontOptions(BlkifAbi.X86_64), Soon);
        _disks.Add(disk);
        return disk;
    }

    /// <summary>A guest with one disk, connected.</summary>
    protected async Task<(EmulatedGuest Guest, Blkfront Disk)> ConnectAsync(
        string target, BlkfrontOptions? options = null)
    {
        EmulatedGuest guest = await MakeGuestAsync(1);
        await Toolstack.AttachAsync(1, Disk(target));
        return (guest, await ConnectAsync(guest, options: options));
    }

    /// <summary>Waits until the daemon's log has a line with some text.</summary>
    protected async Task<string> AwaitLogAsync(string text)
    {
        using CancellationTokenSource limit = new(Soon);
        string directory = Path.GetDirectoryName(DaemonLog)!;
        using FileSystemWatcher watcher =
            new(directory, Path.GetFileName(DaemonLog)) { NotifyFilter = NotifyFilters.Size | NotifyFilters.LastWrite };
        using SemaphoreSlim changed = new(0);
        watcher.Changed += (_, _) => changed.Release();
        watcher.EnableRaisingEvents = true;
        while (true)
        {
            string? line = File.ReadAllLines(DaemonLog)
                .FirstOrDefault(line => line.Contains(text, StringComparison.Ordinal));
            if (line is not null) return line;
            await changed.WaitAsync(limit.Token);
        }
    }

    /// <summary>What a process holds open, by the kernel's account.</summary>
    protected static IEnumerable<string> DescriptorsOf(Process process) =>
        Directory.EnumerateFileSystemEntries($"/proc/{process.Id}/fd")
            .Select(link => new FileInfo(link).LinkTarget ?? "");

    private Process Start(string program, Dictionary<string, string> environment, params string[] arguments)
    {
        ProcessStartInfo start = new("/bin/sh", ["-c", "exec \"$0\" \"$@\" 2>>\"$LOG\"", program, .. arguments])
        {
            RedirectStandardOutput = true,
            RedirectStandardInput = true,
        };
        start.Environment["LOG"] = DaemonLog;
        foreach ((string name, string value) in environment) start.Environment[name] = value;
        Process process = Process.Start(start)!;
        _processes.Add(process);
        return process;
    }

    /// <summary>The folder of the repository.</summary>
    public static string FindRoot()
    {
        string? directory = AppContext.BaseDirectory;
        while (directory is not null && !File.Exists(Path.Combine(directory, "Ublkback.sln")))
            directory = Path.GetDirectoryName(directory);
        return directory ?? throw new DirectoryNotFoundException("the tests run inside the source tree");
    }

    // The debug build, for its assertions; the tests' project builds it.
    private static string FindProgram() =>
        Environment.GetEnvironmentVariable("UBLKBACK_PROGRAM")
            ?? Path.Combine(FindRoot(), "src/Ublkback/bin/Debug/net10.0/linux-x64/ublkback");
}
