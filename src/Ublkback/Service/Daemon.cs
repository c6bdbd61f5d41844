using System.Net.Sockets;
using System.Text;
using Microsoft.Extensions.Logging;
using Mono.Unix.Native;
using Ublkback.Backend.Connections;
using Ublkback.Backend.Grants;
using Ublkback.Backend.Journals;
using Ublkback.Backend.Requests;
using Ublkback.Backend.Vbds;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;
using Ublkback.Plugins;
using Ublkback.Xen;
using Ublkback.XenStore;

namespace Ublkback.Service;

/// <summary>The daemon, put together by hand.</summary>
internal sealed partial class Daemon(
    HostEnvironment host, CatalogMaker catalog, IReadOnlyList<ControlCommand> commands, ILogger logger)
{
    /// <summary>Serves until cancelled, then leaves connected rings in order for the next daemon.</summary>
    /// <exception cref="CommandException">It cannot run here; the message says why.</exception>
    public async Task RunAsync(CancellationToken cancellation)
    {
        using FileDescriptor oneDaemon = BeTheOnlyOne();
        await using XenStoreClient store = OpenStore();
        string home = await FindHomeAsync(store).ConfigureAwait(false);
        ushort domid = ushort.Parse(home.AsSpan(home.LastIndexOf('/') + 1));
        using IHypervisor hypervisor = OpenHypervisor(domid);
        List<Worker> workers = StartWorkers();
        try
        {
            BackendServices services = new(
                store, home, hypervisor, workers, MakeCatalog(), new KernelBlkback(host.Sysfs),
                new GrantBudget(), new RequestBudget(), new JournalDirectory(host.JournalDirectory), host.QemuFolder,
                logger);
            VbdDirectory directory = new(services);
            Hotplug hotplug = new(services, directory);
            Task serving = directory.RunAsync(cancellation);
            await Task.WhenAny(directory.Ready, serving).ConfigureAwait(false);
            using (new ControlServer(host.ControlSocket, commands, new ControlServices(directory, hotplug), logger))
            {
                Serving(home, workers.Count);
                await NotifySystemdAsync("READY=1").ConfigureAwait(false);
                await serving.ConfigureAwait(false);
            }

            Ended();
        }
        finally
        {
            foreach (Worker worker in workers) worker.Dispose();
        }
    }

    private BlockCatalog MakeCatalog()
    {
        BlockCatalog made = catalog.Make(host, out IReadOnlyList<PluginReport> plugins);
        foreach (PluginReport plugin in plugins)
        {
            if (plugin.Refusal is null) PluginLoaded(logger, plugin.File, plugin.Names);
            else PluginRefused(logger, plugin.File, plugin.Refusal);
        }

        if (plugins.Count > 0)
            StrayFailures.Survive(failure => PluginFailed(logger, failure.GetType().Name, failure.Message));
        return made;
    }

    private FileDescriptor BeTheOnlyOne()
    {
        try
        {
            const UnixFileMode OnlyTheUser = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
            Directory.CreateDirectory(host.RunDirectory, OnlyTheUser);
            FileDescriptor file = FileDescriptor.Open(
                Path.Combine(host.RunDirectory, "daemon.lock"), OpenFlags.O_RDWR | OpenFlags.O_CREAT);
            if (OfdLock.TryExclude(file, 0)) return file;
            file.Dispose();
            throw new CommandException($"another daemon runs already (it holds {host.RunDirectory}/daemon.lock)");
        }
        catch (Exception failure) when (failure is UnauthorizedAccessException or IOException)
        {
            throw new CommandException(
                $"{host.RunDirectory} cannot be used: {failure.Message}; run the daemon as root");
        }
    }

    private XenStoreClient OpenStore()
    {
        try
        {
            XenStoreClient store = host.OpenStore();
            store.Lost += StoreLost;
            store.Reconnected += StoreReconnected;
            return store;
        }
        catch (XenStoreException failure)
        {
            throw new CommandException(failure.Message);
        }
    }

    private static async Task<string> FindHomeAsync(XenStoreClient store)
    {
        try
        {
            return await BackendServices.FindHomeAsync(store).ConfigureAwait(false);
        }
        catch (XenStoreException failure)
        {
            throw new CommandException(failure.Message);
        }
    }

    private IHypervisor OpenHypervisor(ushort domid)
    {
        try
        {
            return host.OpenHypervisor(domid);
        }
        catch (LinuxException failure)
        {
            throw new CommandException(
                $"{failure.Message}: is this a Xen host, is the module xen-gntdev loaded, and is this user root?");
        }
    }

    private static List<Worker> StartWorkers()
    {
        try
        {
            return [
                .. Enumerable.Range(0, Environment.ProcessorCount).Select(number => new Worker($"worker-{number}"))];
        }
        catch (LinuxException failure)
        {
            throw new CommandException(failure.Message);
        }
    }

    // sd_notify(3): a datagram to the socket that systemd names.
    private static async Task NotifySystemdAsync(string state)
    {
        if (Environment.GetEnvironmentVariable("NOTIFY_SOCKET") is not { Length: > 0 } path) return;
        using Socket socket = new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        string address = path.StartsWith('@') ? '\0' + path[1..] : path;
        await socket.SendToAsync(Encoding.UTF8.GetBytes(state), new UnixDomainSocketEndPoint(address))
            .ConfigureAwait(false);
    }

    private void StoreLost(string cause) => StoreLost(logger, cause);

    private void StoreReconnected() => StoreReconnected(logger);

    private void Serving(string home, int workers) => Serving(logger, home, workers);

    private void Ended() => Ended(logger);

    [LoggerMessage(Level = LogLevel.Information, Message = "serving the vbds of {Home} with {Workers} workers")]
    private static partial void Serving(ILogger logger, string home, int workers);

    [LoggerMessage(Level = LogLevel.Information, Message = "plugin {File}: {Names}")]
    private static partial void PluginLoaded(ILogger logger, string file, string names);

    [LoggerMessage(Level = LogLevel.Error, Message = "plugin {File} is refused: {Reason}")]
    private static partial void PluginRefused(ILogger logger, string file, string reason);

    [LoggerMessage(
        Level = LogLevel.Error, Message = "code of a plugin failed on a thread of its own: {Type}: {Message}")]
    private static partial void PluginFailed(ILogger logger, string type, string message);

    [LoggerMessage(Level = LogLevel.Information, Message = "ended; connected disks wait for the next daemon")]
    private static partial void Ended(ILogger logger);

    [LoggerMessage(Level = LogLevel.Error,
        Message = "xenstore: connection lost: {Cause}; connected disks go on, trying to connect again")]
    private static partial void StoreLost(ILogger logger, string cause);

    [LoggerMessage(Level = LogLevel.Information, Message = "xenstore: connected again, reading everything anew")]
    private static partial void StoreReconnected(ILogger logger);
}
