using System.Net.Sockets;
using System.Reflection;
using Ublkback.EmulatedHost;
using Ublkback.Hosting;
using Ublkback.XenStore;

namespace Ublkback.Demo;

/// <summary>
/// An emulated host and a daemon on it, each a process of its own, in a directory that goes with them.
/// </summary>
internal sealed class PrivateHost : IAsyncDisposable
{
    private static readonly TimeSpan ReadyTimeout = TimeSpan.FromSeconds(30);
    private static readonly Dictionary<string, string> NoVariables = [];

    private readonly ChildProcess _host;
    private readonly ChildProcess _daemon;

    private PrivateHost(string directory, ChildProcess host, ChildProcess daemon, XenStoreClient store)
    {
        Root = directory;
        _host = host;
        _daemon = daemon;
        Store = store;
        Environment = HostEnvironment.Parse(RootOf(directory));
        Toolstack = new Toolstack(
            Environment.Emulated!, store, new Dictionary<string, string> { ["UBLKBACK"] = ChildProcess.Program });
        Script = WriteScript();
    }

    /// <summary>The directory.</summary>
    public string Root { get; }

    /// <summary>Where commands find the host.</summary>
    public HostEnvironment Environment { get; }

    /// <summary>A connection to its store.</summary>
    public XenStoreClient Store { get; }

    /// <summary>Its toolstack.</summary>
    public Toolstack Toolstack { get; }

    /// <summary>Path of the hotplug script.</summary>
    public string Script { get; }

    /// <summary>Process numbers of host and daemon.</summary>
    public IReadOnlyList<int> Processes => [_host.Id, _daemon.Id];

    /// <summary>What its processes said on standard error.</summary>
    public static string LogOf(string directory) => Path.Combine(directory, "daemon.log");

    /// <summary>Starts both in a directory of our own, which the caller removes if this fails.</summary>
    /// <exception cref="TimeoutException">One of them did not come up.</exception>
    public static async Task<PrivateHost> StartAsync(string directory)
    {
        ChildProcess host = ChildProcess.Start(LogOf(directory), NoVariables, "xen-host", RootOf(directory));
        try
        {
            await ReadUntilAsync(host, "ready:").ConfigureAwait(false);
            ChildProcess daemon = await StartDaemonAsync(directory).ConfigureAwait(false);
            return new PrivateHost(directory, host, daemon, HostEnvironment.Parse(RootOf(directory)).OpenStore());
        }
        catch
        {
            await host.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await Store.DisposeAsync().ConfigureAwait(false);
        await _daemon.DisposeAsync().ConfigureAwait(false);
        await _host.DisposeAsync().ConfigureAwait(false);
    }

    private static string RootOf(string directory) => Path.Combine(directory, "host");

    private static async Task ReadUntilAsync(ChildProcess process, string start)
    {
        using CancellationTokenSource limit = new(ReadyTimeout);
        while (await process.Output.ReadLineAsync(limit.Token).ConfigureAwait(false) is string line)
        {
            if (line.StartsWith(start, StringComparison.Ordinal)) return;
        }

        throw new TimeoutException($"a process ended without saying '{start}'");
    }

    // The daemon tells that it is ready by systemd's protocol, so nothing here has to guess.
    private static async Task<ChildProcess> StartDaemonAsync(string directory)
    {
        string path = Path.Combine(directory, "notify");
        using Socket socket = new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        socket.Bind(new UnixDomainSocketEndPoint(path));
        ChildProcess daemon = ChildProcess.Start(
            LogOf(directory), new Dictionary<string, string> { ["NOTIFY_SOCKET"] = path },
            "daemon", "--host", RootOf(directory));
        using CancellationTokenSource limit = new(ReadyTimeout);
        Task<int> ready = socket.ReceiveAsync(new byte[64], limit.Token).AsTask();
        Task<int> ended = daemon.WaitAsync();
        if (await Task.WhenAny(ready, ended).ConfigureAwait(false) == ended)
            throw new TimeoutException("the daemon ended at once");
        await ready.ConfigureAwait(false);
        return daemon;
    }

    private string WriteScript()
    {
        string path = Path.Combine(Root, "block-ublkback");
        using Stream script = Assembly.GetExecutingAssembly().GetManifestResourceStream("block-ublkback")!;
        using (FileStream copy = File.Create(path)) script.CopyTo(copy);
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        return path;
    }
}
