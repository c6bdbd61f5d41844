using System.Collections.Concurrent;
using Ublkback.Backend.Connections;
using Ublkback.Backend.Report;
using Ublkback.Backend.Xenbus;
using Ublkback.XenStore;

namespace Ublkback.Backend.Vbds;

/// <summary>
/// Watches the backend directories, creates a <see cref="Vbd"/> for each device with our hotplug script, and wakes it
/// when its directory changes.
/// </summary>
/// <remarks>Any thread. Invariant: at most one vbd of an address runs.</remarks>
public sealed class VbdDirectory(BackendServices services)
{
    private readonly ConcurrentDictionary<VbdAddress, (Vbd Vbd, Task Run)> _vbds = new();
    private readonly TaskCompletionSource _ready = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _nextWorker;
    private volatile bool _isStopping;

    /// <summary>The current vbds, in the order of domain and device.</summary>
    public IReadOnlyList<Vbd> Vbds =>
        [.. _vbds.Values.Select(entry => entry.Vbd).OrderBy(vbd => vbd.Address.Domid)
            .ThenBy(vbd => vbd.Address.DeviceId)];

    /// <summary>Ends when the devices that were there at the start have been found.</summary>
    public Task Ready => _ready.Task;

    /// <summary>Returns the vbd of an address; null if there is none.</summary>
    public Vbd? Find(VbdAddress address) =>
        _vbds.TryGetValue(address, out (Vbd Vbd, Task Run) entry) ? entry.Vbd : null;

    /// <summary>Serves until cancelled, then leaves all connected rings to the next daemon.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        await LoadKernelBackendAsync().ConfigureAwait(false);
        services.Journals.KeepOnly(await ListAsync().ConfigureAwait(false));
        List<XenStoreWatch> watches = [];
        foreach (string kind in VbdAddress.Kinds)
            watches.Add(await services.Store.WatchAsync($"{services.Home}/backend/{kind}").ConfigureAwait(false));
        await ScanAsync().ConfigureAwait(false);
        _ready.SetResult();

        await Task.WhenAll(watches.Select(watch => FollowAsync(watch, cancellation))).ConfigureAwait(false);
        _isStopping = true;
        foreach ((Vbd vbd, _) in _vbds.Values) vbd.Stop();
        await Task.WhenAll(_vbds.Values.Select(entry => entry.Run)).ConfigureAwait(false);
    }

    /// <summary>
    /// Wakes the vbd of an address, or creates it if the device is ours. The hotplug request calls it too, since it can
    /// arrive before the watch's event.
    /// </summary>
    public async Task LookAtAsync(VbdAddress address)
    {
        if (_vbds.TryGetValue(address, out (Vbd Vbd, Task Run) known))
        {
            known.Vbd.Wake();
            return;
        }

        VbdConfiguration? configuration;
        try
        {
            configuration = await VbdConfiguration.ReadAsync(
                services.Store, $"{services.Home}/{address.RelativePath}", address).ConfigureAwait(false);
        }
        catch (FrontendException failure)
        {
            new VbdLog(services.Logger, address).ConnectFailed(failure.Message);
            return;
        }

        if (configuration is null) return;
        int firstWorker = (int)((uint)Interlocked.Increment(ref _nextWorker) % (uint)services.Workers.Count);
        Vbd vbd = new(services, address, configuration, firstWorker);
        TaskCompletionSource start = new(TaskCreationOptions.RunContinuationsAsynchronously);
        if (_vbds.TryAdd(address, (vbd, RunVbdAsync(vbd, start.Task)))) start.SetResult();
    }

    // Only while no device is connected: otherwise an earlier daemon has loaded it, or it is too late.
    private async Task LoadKernelBackendAsync()
    {
        List<VbdAddress> addresses = await ListAsync().ConfigureAwait(false);
        foreach (VbdAddress address in addresses)
        {
            string? state =
                await services.Store.ReadAsync($"{services.Home}/{address.RelativePath}/state").ConfigureAwait(false);
            if (XenbusStates.Parse(state) == XenbusState.Connected) return;
        }

        await Task.Run(services.Kernel.LoadEarly).ConfigureAwait(false);
    }

    private async Task RunVbdAsync(Vbd vbd, Task start)
    {
        await start.ConfigureAwait(false);
        try
        {
            await vbd.RunAsync().ConfigureAwait(false);
            _vbds.TryRemove(vbd.Address, out _);
            // A new device may have the same address by now.
            if (!_isStopping) await LookAtAsync(vbd.Address).ConfigureAwait(false);
        }
        catch (XenStoreException)
        {
            // The client logs a lost store. When the store is back, the watches fire and all devices are read again.
            _vbds.TryRemove(vbd.Address, out _);
        }
#pragma warning disable CA1031 // a bug of ours ends the daemon, not just one disk without a word
        catch (Exception failure)
#pragma warning restore CA1031
        {
            Environment.FailFast($"{vbd.Address}: {failure}");
        }
    }

    private async Task FollowAsync(XenStoreWatch watch, CancellationToken cancellation)
    {
        string parent = $"{services.Home}/backend/";
        try
        {
            while (true)
            {
                IReadOnlyCollection<string> paths = await watch.WaitAsync(cancellation).ConfigureAwait(false);
                try
                {
                    await LookAtAllAsync(paths, parent).ConfigureAwait(false);
                }
                catch (XenStoreException)
                {
                    // The client logs a lost store. When the store is back, this watch fires.
                }
            }
        }
        catch (OperationCanceledException)
        {
            // The daemon ends.
        }
    }

    private async Task LookAtAllAsync(IReadOnlyCollection<string> paths, string parent)
    {
        HashSet<VbdAddress> touched = [];
        foreach (string path in paths)
        {
            // A path above the devices (the watch itself, a domain) stands for all below it.
            if (!path.StartsWith(parent, StringComparison.Ordinal)
                || !VbdAddress.TryParse(path[parent.Length..], out VbdAddress address))
            {
                touched.Clear();
                break;
            }

            touched.Add(address);
        }

        if (touched.Count == 0) await ScanAsync().ConfigureAwait(false);
        foreach (VbdAddress address in touched) await LookAtAsync(address).ConfigureAwait(false);
    }

    private async Task ScanAsync()
    {
        foreach ((Vbd vbd, _) in _vbds.Values) vbd.Wake();
        foreach (VbdAddress address in await ListAsync().ConfigureAwait(false))
            await LookAtAsync(address).ConfigureAwait(false);
    }

    private async Task<List<VbdAddress>> ListAsync()
    {
        List<VbdAddress> found = [];
        foreach (string kind in VbdAddress.Kinds)
        {
            foreach (string domid in await ListAsync(kind).ConfigureAwait(false))
            {
                foreach (string device in await ListAsync($"{kind}/{domid}").ConfigureAwait(false))
                {
                    if (VbdAddress.TryParse($"{kind}/{domid}/{device}", out VbdAddress address)) found.Add(address);
                }
            }
        }

        return found;
    }

    private async Task<string[]> ListAsync(string directory) =>
        await services.Store.ListAsync($"{services.Home}/backend/{directory}").ConfigureAwait(false) ?? [];
}
