using System.Globalization;
using System.Threading.Channels;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.Linux;
using Ublkback.Xen;
using Ublkback.XenStore;

namespace Ublkback.Backend;

/// <summary>
/// One vbd of ours, from the moment it is found until its directory is gone. Its loop alone changes its state: it is
/// woken, reads the store, asks <see cref="VbdStateMachine"/>, acts, and does so until there is nothing to do.
/// </summary>
#pragma warning disable CA1001 // a cancellation source without a timer holds nothing, and Stop may come late
public sealed class Vbd
#pragma warning restore CA1001
{
    private const int MaxBindAttempts = 100;
    private const int BindRetryDelayMs = 5;
    private const int FastBindAttempts = 3; // a failure of which is perhaps the kernel's backend being there

    // What the kernel's backend may have offered before the device was taken from it, and we do not.
    private static readonly string[] NotOffered =
    [
        "multi-queue-max-queues", "feature-max-indirect-segments", "feature-persistent", "feature-barrier",
        "feature-discard", "discard-granularity", "discard-alignment", "discard-secure",
    ];

    private readonly BackendServices _services;
    private readonly VbdConfiguration _configuration;
    private readonly VbdLog _log;
    private readonly VbdImage _image;
    private readonly string _path;
    private readonly Worker _worker;
    private readonly CancellationTokenSource _stopping = new();

    private readonly Channel<bool> _signal =
        Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });

    private Blkif? _blkif;
    private FrontendParameters? _parameters;
    private XenbusState? _backend;
    private XenbusState? _frontend;
    private bool _isOffered;
    private bool _wasOffered;
    private bool _hasFailed;

    /// <summary>Makes a vbd; <see cref="RunAsync"/> gives it life.</summary>
    public Vbd(BackendServices services, VbdAddress address, VbdConfiguration configuration, Worker worker)
    {
        _services = services;
        _configuration = configuration;
        _worker = worker;
        Address = address;
        _path = $"{services.Home}/{address.RelativePath}";
        _log = new VbdLog(services.Logger, address);
        _image = new VbdImage(services, address, configuration, _log);
    }

    /// <summary>Which vbd it is.</summary>
    public VbdAddress Address { get; }

    /// <summary>What it serves.</summary>
    public string Target => _configuration.Target;

    /// <summary>What it has done.</summary>
    public VbdStatistics Statistics { get; } = new();

    /// <summary>A view for people; any thread, may be a moment old.</summary>
    public VbdSummary Summarize() => new(
        Address, _configuration.Target, _configuration.IsReadOnly, _backend, _frontend, _blkif?.SlotCount,
        _image.Geometry, Statistics);

    /// <summary>Has the loop look at the store. Any thread.</summary>
    public void Wake() => _signal.Writer.TryWrite(true);

    /// <summary>Ends the loop and leaves a connected ring in order for the next daemon. Any thread, once.</summary>
    public void Stop()
    {
        _stopping.Cancel();
        Wake();
    }

    /// <summary>Opens the image, if it is not open, for the hotplug script.</summary>
    /// <exception cref="TargetException">It cannot be opened.</exception>
    public Task CheckTargetAsync() => _image.OpenAsync();

    /// <summary>Lives until the device is gone or <see cref="Stop"/>.</summary>
    public async Task RunAsync()
    {
        _log.Found(_configuration.Target);
        XenStoreWatch? watch = null;
        Task pump = Task.CompletedTask;
        try
        {
            watch = await _services.Store.WatchAsync($"{_configuration.FrontendPath}/state").ConfigureAwait(false);
            pump = PumpAsync(watch);
            Wake();
            while (await StepUntilQuietAsync().ConfigureAwait(false)) await _signal.Reader.ReadAsync().ConfigureAwait(false);
        }
        finally
        {
            await _stopping.CancelAsync().ConfigureAwait(false);
            await pump.ConfigureAwait(false);
            if (watch is not null) await ForgivingAsync(() => _services.Store.UnwatchAsync(watch)).ConfigureAwait(false);
        }
    }

    private async Task PumpAsync(XenStoreWatch watch)
    {
        try
        {
            while (true)
            {
                await watch.WaitAsync(_stopping.Token).ConfigureAwait(false);
                Wake();
            }
        }
        catch (OperationCanceledException)
        {
            // The vbd ends.
        }
    }

    // False when the vbd has ended.
    private async Task<bool> StepUntilQuietAsync()
    {
        while (!_stopping.IsCancellationRequested)
        {
            try
            {
                VbdAction action = VbdStateMachine.Decide(await ViewAsync().ConfigureAwait(false));
                if (action == VbdAction.Wait) return true;
                await ActAsync(action).ConfigureAwait(false);
                if (action == VbdAction.Forget) return false;
            }
            catch (XenStoreException failure)
            {
                // A reconnected store fires all watches.
                _log.StoreFailed(failure.Message);
                return true;
            }
        }

        await DetachAsync().ConfigureAwait(false);
        return false;
    }

    private async Task<VbdView> ViewAsync()
    {
        XenStoreClient store = _services.Store;
        _backend = XenbusStates.Parse(await store.ReadAsync($"{_path}/state").ConfigureAwait(false));
        string? frontend = await store.ReadAsync($"{_configuration.FrontendPath}/state").ConfigureAwait(false);
        _frontend = XenbusStates.Parse(frontend);
        if (_frontend == XenbusState.Unknown) _log.OddFrontendState(FrontendParameters.Quote(frontend!));
        bool isOnline = await store.ReadAsync($"{_path}/online").ConfigureAwait(false) == "1";
        return new VbdView(
            _backend, isOnline, _frontend, _isOffered, _wasOffered, _services.Kernel.Holds(Address), _blkif is not null,
            _hasFailed);
    }

    private Task ActAsync(VbdAction action) => action switch
    {
        VbdAction.Offer => OfferAsync(),
        VbdAction.Connect => ConnectAsync(),
        VbdAction.Attach => AttachAsync(),
        VbdAction.Reclaim => ReclaimAsync(),
        VbdAction.Close => SwitchAsync(XenbusState.Closing),
        VbdAction.Disconnect => DisconnectAsync(),
        VbdAction.Forget => ForgetAsync(),
        _ => Task.CompletedTask,
    };

    private async Task OfferAsync()
    {
        ReleaseFromKernel();
        _ = ForgivingAsync(_image.OpenAsync); // told by the hotplug request or at Connect
        await SwitchAsync(
            XenbusState.InitWait, ("max-ring-page-order", Number(BlkifConstants.MaxRingPageOrder))).ConfigureAwait(false);
        _isOffered = true;
        _wasOffered = true;
        _hasFailed = false;
    }

    // A device that cannot be connected says so where toolstacks look, and closes; the others go on.
    private async Task ConnectAsync()
    {
        try
        {
            FrontendParameters parameters = await ReadFrontendAsync().ConfigureAwait(false);
            await ServeAsync(parameters, responseProducer: 0).ConfigureAwait(false);
            _log.Connected(_blkif!.SlotCount, parameters.Abi.Protocol);
        }
        catch (Exception failure) when (IsExpected(failure))
        {
            _hasFailed = true;
            _log.Fatal(failure.Message);
            await _services.Store.WriteAsync($"{ErrorDirectory}/error", failure.Message).ConfigureAwait(false);
            await SwitchAsync(XenbusState.Closing).ConfigureAwait(false);
        }
    }

    // A guest is connected already: whatever goes wrong here, closing would make blkfront take the disk for dead.
    private async Task AttachAsync()
    {
        try
        {
            FrontendParameters parameters = await ReadFrontendAsync().ConfigureAwait(false);
            Handover? handover = _services.Handovers.Read(Address);
            if (handover is null || !handover.Fits(_configuration.FrontendPath, parameters))
            {
                _hasFailed = true;
                _log.Orphaned();
                return;
            }

            await ServeAsync(parameters, handover.ResponseProducer).ConfigureAwait(false);
            _services.Handovers.Remove(Address);
            _log.Attached(_blkif!.SlotCount);
        }
        catch (Exception failure) when (IsExpected(failure))
        {
            _hasFailed = true;
            _log.Fatal($"cannot be taken over: {failure.Message}; mend it and restart the daemon");
        }
    }

    private static bool IsExpected(Exception failure) =>
        failure is TargetException or FrontendException or LinuxException;

    private Task<FrontendParameters> ReadFrontendAsync() =>
        FrontendParameters.ReadAsync(_services.Store, _configuration.FrontendPath);

    private async Task ServeAsync(FrontendParameters parameters, uint responseProducer)
    {
        SharedImage image = await _image.OpenAsync().ConfigureAwait(false);
        ReleaseFromKernel();
        Blkif blkif = await Task.Run(() => MapAndBindAsync(image, parameters, responseProducer)).ConfigureAwait(false);
        _blkif = blkif;
        _parameters = parameters;
        blkif.Start();
        await SwitchAsync(XenbusState.Connected, Features(image.Image.Geometry)).ConfigureAwait(false);
    }

    private async Task<Blkif> MapAndBindAsync(SharedImage image, FrontendParameters parameters, uint responseProducer)
    {
        IGrantMapping mapping = _services.Hypervisor.MapGrants(Address.Domid, [.. parameters.RingReferences]);
        IEventChannel? channel = null;
        try
        {
            channel = await BindAsync(parameters.EventChannel).ConfigureAwait(false);
            BackRing ring = new(mapping.Address, parameters.RingPageOrder, parameters.Abi, responseProducer);
            if (responseProducer != 0 && ring.SharedResponseProducer != responseProducer)
                throw new FrontendException("the ring's response index was changed while no daemon served it");
            image.AddReference();
            return new Blkif(new BlkifParts(
                Address.Domid, _services.Hypervisor, _worker, image, mapping, channel, ring, Statistics, _log));
        }
        catch
        {
            channel?.Dispose();
            mapping.Dispose();
            throw;
        }
    }

    // A port is freed a little after its process has died, and the kernel's backend may have taken it.
    private async Task<IEventChannel> BindAsync(uint port)
    {
        for (int attempt = 1; ; attempt++)
        {
            try
            {
                return _services.Hypervisor.BindEventChannel(Address.Domid, port);
            }
            catch (LinuxException) when (attempt < MaxBindAttempts)
            {
                if (attempt >= FastBindAttempts) ReleaseFromKernel();
                await Task.Delay(BindRetryDelayMs).ConfigureAwait(false);
            }
        }
    }

    private async Task ReclaimAsync()
    {
        ReleaseFromKernel();
        SharedImage image = await _image.OpenAsync().ConfigureAwait(false);
        await SwitchAsync(XenbusState.Connected, Features(image.Image.Geometry)).ConfigureAwait(false);
    }

    private async Task DisconnectAsync()
    {
        await CloseBlkifAsync().ConfigureAwait(false);
        _isOffered = false;
        bool stays = await _services.Store.ReadAsync($"{_path}/online").ConfigureAwait(false) == "1";
        if (!stays) await _image.CloseAsync().ConfigureAwait(false);
        await SwitchAsync(XenbusState.Closed).ConfigureAwait(false);
        _log.Disconnected();
    }

    private async Task ForgetAsync()
    {
        await CloseBlkifAsync().ConfigureAwait(false);
        await _image.CloseAsync().ConfigureAwait(false);
        _services.Handovers.Remove(Address);
        await _services.Store.RemoveAsync(ErrorDirectory).ConfigureAwait(false);
        _log.Gone();
    }

    private async Task DetachAsync()
    {
        if (_blkif is Blkif blkif && _parameters is FrontendParameters parameters)
        {
            await CloseBlkifAsync().ConfigureAwait(false);
            _services.Handovers.Put(Address, new Handover(
                _configuration.FrontendPath, parameters.EventChannel, parameters.RingReferences,
                parameters.Abi.Protocol, blkif.ResponseProducer));
            _log.Detached();
        }

        await _image.CloseAsync().ConfigureAwait(false);
    }

    private async Task CloseBlkifAsync()
    {
        if (_blkif is not Blkif blkif) return;
        await blkif.CloseAsync().ConfigureAwait(false);
        _blkif = null;
    }

    private (string Name, string Value)[] Features(ImageGeometry geometry) =>
    [
        ("sectors", Number(geometry.SectorCount)), // always of 512 bytes
        ("sector-size", Number((ulong)geometry.SectorSize)),
        ("physical-sector-size", Number((ulong)geometry.PhysicalSectorSize)),
        ("info", Number((ulong)_configuration.Info)),
        ("feature-flush-cache", "1"),
    ];

    private static string Number(ulong value) => value.ToString(CultureInfo.InvariantCulture);

    // The state is read in the same transaction, so that a node that was deleted is never made again.
    private Task<bool> SwitchAsync(XenbusState state, params (string Name, string Value)[] nodes) =>
        _services.Store.TransactAsync(async store =>
        {
            if (await store.ReadAsync($"{_path}/state").ConfigureAwait(false) is null) return false;
            if (state is XenbusState.InitWait or XenbusState.Connected)
            {
                foreach (string name in NotOffered) await store.RemoveAsync($"{_path}/{name}").ConfigureAwait(false);
            }

            foreach ((string name, string value) in nodes)
                await store.WriteAsync($"{_path}/{name}", value).ConfigureAwait(false);
            await store.WriteAsync($"{_path}/state", state.ToNode()).ConfigureAwait(false);
            return true;
        });

    private void ReleaseFromKernel()
    {
        try
        {
            if (_services.Kernel.Release(Address)) _log.ReleasedFromKernel();
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            _log.Fatal($"the kernel's xen-blkback holds the device and cannot be unbound: {failure.Message}");
        }
    }

    private string ErrorDirectory => $"{_services.Home}/error/{Address.RelativePath}";

    private static async Task ForgivingAsync(Func<Task> action)
    {
        try
        {
            await action().ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is TargetException or XenStoreException)
        {
            // Told elsewhere.
        }
    }
}
