using Microsoft.Extensions.Logging;
using Ublkback.Backend.Connections;
using Ublkback.Backend.Grants;
using Ublkback.Backend.Journals;
using Ublkback.Backend.Requests;
using Ublkback.Backend.Vbds;
using Ublkback.Block;
using Ublkback.Control;
using Ublkback.Hosting;
using Ublkback.Images.Qcow2;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;
using Ublkback.Plugins;
using Ublkback.Xen;
using Ublkback.XenStore;

namespace Ublkback.Service;

/// <summary>The daemon, composed by hand.</summary>
internal sealed class Daemon(
    HostEnvironment host, CatalogMaker catalog, IReadOnlyList<ControlCommand> commands, ILogger logger)
{
    // Weighs nine times as much as 0 (sched_prio_to_weight, kernel/sched/core.c): others get a tenth at least.
    private const int WorkerNice = -10;

    /// <summary>Serves until cancelled, then leaves connected rings in order for the next daemon.</summary>
    /// <exception cref="CommandException">It cannot run here; the message says why.</exception>
    public async Task RunAsync(CancellationToken cancellation)
    {
        using FileDescriptor oneDaemon = DaemonLock.Take(host.RunDirectory);
        await using XenStoreClient store = OpenStore();
        string home = await BackendServices.FindHomeAsync(store).ConfigureAwait(false);
        ushort domid = ushort.Parse(home.AsSpan(home.LastIndexOf('/') + 1));
        using IHypervisor hypervisor = OpenHypervisor(domid);
        List<Worker> workers = StartWorkers();
        try
        {
            BackendServices services = new(
                store, home, hypervisor, workers, MakeCatalog(), new KernelBlkback(host.Sysfs),
                new GrantBudget(), new RequestBudget(), new JournalDirectory(host.JournalDirectory), host.QemuFolder,
                logger);
            Qcow2Scheme.RemoveOrphanLogsSoon(host.JournalDirectory, removed => DaemonLog.LogRemoved(logger, removed));
            VbdDirectory directory = new(services);
            Hotplug hotplug = new(services, directory);
            Task serving = directory.RunAsync(cancellation);
            await Task.WhenAny(directory.Ready, serving).ConfigureAwait(false);
            ControlServices control = new(directory, hotplug, services);
            using (new ControlServer(host.ControlSocket, commands, control, logger))
            {
                DaemonLog.Serving(logger, home, workers.Count);
                await SystemdNotification.SendReadyAsync().ConfigureAwait(false);
                await serving.ConfigureAwait(false);
            }

            DaemonLog.Ended(logger);
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
            if (plugin.Refusal is null) DaemonLog.PluginLoaded(logger, plugin.File, plugin.Names);
            else DaemonLog.PluginRefused(logger, plugin.File, plugin.Refusal);
        }

        if (plugins.Count > 0)
            StrayFailures.Survive(failure => DaemonLog.PluginFailed(logger, failure.GetType().Name, failure.Message));
        return made;
    }

    private XenStoreClient OpenStore()
    {
        XenStoreClient store = host.OpenStore();
        store.Lost += cause =>
        {
            if (store.CanReconnect) DaemonLog.StoreLost(logger, cause);
            else DaemonLog.StoreLostForGood(logger, cause);
        };
        store.Reconnected += () => DaemonLog.StoreReconnected(logger);
        return store;
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
                failure.Message, "run the daemon as root on a Xen host, with the module xen-gntdev loaded", failure);
        }
    }

    private static List<Worker> StartWorkers() =>
        [.. Enumerable.Range(0, Environment.ProcessorCount)
            .Select(number => new Worker($"worker-{number}", nice: WorkerNice))];
}
