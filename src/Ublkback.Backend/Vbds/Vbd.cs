using System.Threading.Channels;
using Ublkback.Backend.Connections;
using Ublkback.Backend.Journals;
using Ublkback.Backend.Report;
using Ublkback.Backend.Xenbus;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.XenStore;

namespace Ublkback.Backend.Vbds;

/// <summary>
/// One vbd of ours, from the moment it is found until its directory is gone. Its loop alone changes its state: it is
/// woken, reads the store, asks <see cref="VbdStateMachine"/>, acts, and does so until there is nothing to do.
/// </summary>
#pragma warning disable CA1001 // a cancellation source without a timer holds nothing, and Stop may come late
public sealed class Vbd
#pragma warning restore CA1001
{
    private static readonly TimeSpan AttachRetryDelay = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan SuspectsPatience = TimeSpan.FromSeconds(10);

    private readonly BackendServices _services;
    private readonly VbdConfiguration _configuration;
    private readonly VbdLog _log;
    private readonly VbdImage _image;
    private readonly string _path;
    private readonly VbdNodes _nodes;
    private readonly BlkifConnector _connector;
    private readonly CancellationTokenSource _stopping = new();

    private readonly Channel<bool> _signal =
        Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });

    private BlkifConnection? _blkif;
    private XenbusState? _backend;
    private XenbusState? _frontend;
    private bool _isOffered;
    private bool _wasOffered;
    private volatile bool _hasFailed;
    private Task<SharedImage>? _opening; // awaited to connect
    private TaskCompletionSource? _measurement; // asked for, not yet begun

    /// <summary>
    /// Makes a vbd; <see cref="RunAsync"/> gives it life. Its queues are spread over the workers, from one of them on.
    /// </summary>
    public Vbd(BackendServices services, VbdAddress address, VbdConfiguration configuration, int firstWorker)
    {
        _services = services;
        _configuration = configuration;
        Address = address;
        _path = $"{services.Home}/{address.RelativePath}";
        _nodes = new VbdNodes(services.Store, _path);
        _log = new VbdLog(services.Logger, address);
        _image = new VbdImage(services, address, configuration, _log, firstWorker);
        _connector = new BlkifConnector(services, address, configuration, _log, Statistics, firstWorker);
    }

    /// <summary>Which vbd it is.</summary>
    public VbdAddress Address { get; }

    /// <summary>What it serves.</summary>
    public string Target => _configuration.Target;

    /// <summary>What it has done.</summary>
    public VbdStatistics Statistics { get; } = new();

    /// <summary>A view for people; any thread, may be a moment old.</summary>
    public VbdSummary Summarize() => new(
        Address, _configuration.Target, _configuration.IsReadOnly, _backend, _frontend, _blkif?.QueueCount,
        _blkif?.SlotCount, _blkif?.PersistentPages, _image.Geometry, _blkif?.Trouble, _blkif?.FindOldestAge(),
        Statistics);

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

    /// <summary>The socket of the export for QEMU; null if there is none. Any thread.</summary>
    public string? QemuSocket => _image.QemuSocket;

    /// <summary>Tries again the requests that are held because the storage failed them. Any thread.</summary>
    public void Resume() => _blkif?.Resume();

    /// <summary>Changes arguments of a hook of the open image, until it is opened again. Any thread.</summary>
    /// <exception cref="TargetException">There is no such hook, or it cannot be changed so.</exception>
    public void Change(HookTarget change) => _image.Change(change);

    /// <summary>
    /// Has the loop look whether the image has another size now, and tell the guest; ends when that is done. Any
    /// thread.
    /// </summary>
    public Task MeasureAsync()
    {
        TaskCompletionSource mine = new(TaskCreationOptions.RunContinuationsAsynchronously);
        TaskCompletionSource asked = Interlocked.CompareExchange(ref _measurement, mine, null) ?? mine;
        Wake();
        return asked.Task;
    }

    /// <summary>Makes the disk larger, and tells the guest. Any thread.</summary>
    /// <exception cref="TargetException">It cannot be done; the message says why.</exception>
    public async Task EnlargeAsync(long byteCount)
    {
        BlkifConnection blkif = _blkif
            ?? throw new TargetException(
                "no guest is connected to the disk: detach it and use 'ublkback image resize'");
        await VbdImage.EnlargeAsync(blkif.Image, blkif.Loop, byteCount).ConfigureAwait(false);
        await MeasureAsync().ConfigureAwait(false);
    }

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
            while (await StepUntilQuietAsync().ConfigureAwait(false))
                await _signal.Reader.ReadAsync().ConfigureAwait(false);
        }
        finally
        {
            await _stopping.CancelAsync().ConfigureAwait(false);
            await pump.ConfigureAwait(false);
            if (watch is not null)
                await ForgivingAsync(() => _services.Store.UnwatchAsync(watch)).ConfigureAwait(false);
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
                if (Interlocked.Exchange(ref _measurement, null) is TaskCompletionSource measurement)
                {
                    try
                    {
                        await TellSizeAsync().ConfigureAwait(false);
                    }
                    finally
                    {
                        measurement.SetResult();
                    }
                }

                VbdAction action = VbdStateMachine.Decide(await ViewAsync().ConfigureAwait(false));
                if (action == VbdAction.Wait) return true;
                if (action is VbdAction.Connect or VbdAction.Attach && !IsImageReady()) return true;
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

    // A storage may take its time; the device must be able to go meanwhile.
    private bool IsImageReady()
    {
        if (_opening is null)
        {
            _opening = _image.OpenAsync();
            if (!_opening.IsCompleted) _ = _opening.ContinueWith(_ => Wake(), TaskScheduler.Default);
        }

        return _opening.IsCompleted;
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
            _blkif is null && _services.Journals.Has(Address), _hasFailed);
    }

    private Task ActAsync(VbdAction action) => action switch
    {
        VbdAction.Offer => OfferAsync(),
        VbdAction.Connect => ConnectAsync(),
        VbdAction.Attach => AttachAsync(),
        VbdAction.Reclaim => ReclaimAsync(),
        VbdAction.Close => _nodes.SwitchAsync(XenbusState.Closing),
        VbdAction.Disconnect => DisconnectAsync(),
        VbdAction.Forget => ForgetAsync(),
        _ => Task.CompletedTask,
    };

    private async Task OfferAsync()
    {
        _connector.ReleaseFromKernel();
        // no rings yet
        if (_frontend is XenbusState.Initialising or XenbusState.InitWait) _services.Journals.Remove(Address);
        _ = ForgivingAsync(_image.OpenAsync); // told by the hotplug request or at Connect
        await _nodes.SwitchAsync(XenbusState.InitWait, VbdNodes.Offer(_services.OfferedQueues)).ConfigureAwait(false);
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
            // A daemon before us may have begun to serve and died before it said so.
            await ServeAsync(parameters, mustGoOn: false).ConfigureAwait(false);
            _log.Connected(parameters);
        }
        catch (Exception failure) when (IsExpected(failure))
        {
            _hasFailed = true;
            _log.ConnectFailed(failure.Message);
            await _services.Store.WriteAsync($"{ErrorDirectory}/error", failure.Message).ConfigureAwait(false);
            await _nodes.SwitchAsync(XenbusState.Closing).ConfigureAwait(false);
        }
    }

    // A guest is connected already: whatever goes wrong here, closing would make blkfront take the disk for dead.
    private async Task AttachAsync()
    {
        try
        {
            FrontendParameters parameters = await ReadFrontendAsync().ConfigureAwait(false);
            await ServeAsync(parameters, mustGoOn: true).ConfigureAwait(false);
            _log.Attached(parameters.Queues.Count);
        }
        catch (Exception failure) when (failure is TargetException or LinuxException)
        {
            _hasFailed = true;
            _log.TakeOverDelayed(failure.Message);
            _ = TryAgainAsync();
        }
        catch (Exception failure) when (IsExpected(failure))
        {
            _hasFailed = true;
            _log.NotTakenOver(failure.Message);
        }
    }

    private async Task TryAgainAsync()
    {
        await Task.Delay(AttachRetryDelay).ConfigureAwait(false);
        _hasFailed = false;
        Wake();
    }

    private static bool IsExpected(Exception failure) =>
        failure is TargetException or FrontendException or LinuxException or JournalException;

    private Task<FrontendParameters> ReadFrontendAsync() =>
        FrontendParameters.ReadAsync(_services.Store, _configuration.FrontendPath, _services.OfferedQueues);

    private async Task ServeAsync(FrontendParameters parameters, bool mustGoOn)
    {
        Task<SharedImage> opening = _opening!;
        _opening = null;
        SharedImage image = await opening.ConfigureAwait(false);
        BlkifConnection blkif = await Task.Run(() => _connector.ConnectAsync(
            image, parameters, mustGoOn, _image.HoldsFailed, () => _ = MeasureAsync())).ConfigureAwait(false);
        if (blkif.HasSuspects) await TakeSuspectsTurnAsync(blkif).ConfigureAwait(false);
        _blkif = blkif;
        blkif.Start();
        KillPoint.Reach("Served");
        // One that is taken over may be closing already, and goes on doing so.
        await _nodes.SwitchAsync(
            mustGoOn ? XenbusState.Connected : null, XenbusState.Connected,
            VbdNodes.Describe(image.Image.Geometry, _configuration.Info)).ConfigureAwait(false);
        KillPoint.Reach("Connected");
    }

    // Bounded, since an image that is stalled must not keep the others waiting.
    private async Task TakeSuspectsTurnAsync(BlkifConnection blkif)
    {
        if (!await _services.SuspectsTurn.WaitAsync(SuspectsPatience).ConfigureAwait(false)) return;
        _ = Task.WhenAny(blkif.Recovered, Task.Delay(SuspectsPatience))
            .ContinueWith(_ => _services.SuspectsTurn.Release(), TaskScheduler.Default);
    }

    private async Task ReclaimAsync()
    {
        _connector.ReleaseFromKernel();
        SharedImage image = await _image.OpenAsync().ConfigureAwait(false);
        await _nodes.SwitchAsync(
            XenbusState.Connected, VbdNodes.Describe(image.Image.Geometry, _configuration.Info)).ConfigureAwait(false);
    }

    private async Task DisconnectAsync()
    {
        await CloseBlkifAsync().ConfigureAwait(false);
        KillPoint.Reach("Disconnected");
        _services.Journals.Remove(Address);
        _isOffered = false;
        bool stays = await _services.Store.ReadAsync($"{_path}/online").ConfigureAwait(false) == "1";
        if (!stays) await _image.CloseAsync().ConfigureAwait(false);
        await _nodes.SwitchAsync(XenbusState.Closed).ConfigureAwait(false);
        _log.Disconnected();
    }

    private async Task ForgetAsync()
    {
        await CloseBlkifAsync().ConfigureAwait(false);
        await _image.CloseAsync().ConfigureAwait(false);
        _services.Journals.Remove(Address);
        await _services.Store.RemoveAsync(ErrorDirectory).ConfigureAwait(false);
        _log.Gone();
    }

    private async Task DetachAsync()
    {
        if (_blkif is not null)
        {
            await CloseBlkifAsync(isForSuccessor: true).ConfigureAwait(false);
            _log.Detached();
        }

        await _image.CloseAsync().ConfigureAwait(false);
    }

    private async Task CloseBlkifAsync(bool isForSuccessor = false)
    {
        if (_blkif is not BlkifConnection blkif) return;
        await blkif.CloseAsync(isForSuccessor).ConfigureAwait(false);
        _blkif = null;
    }

    private async Task TellSizeAsync()
    {
        if (_blkif is null) return;
        try
        {
            SharedImage image = await _image.OpenAsync().ConfigureAwait(false);
            if (!await _image.RemeasureAsync(image.Image).ConfigureAwait(false)) return;
            ImageGeometry geometry = image.Image.Geometry;
            _log.Resized(geometry.SectorCount / 2048);
            // The guest reads the size again when the state is written, though it is the same.
            await _nodes.SwitchAsync(
                XenbusState.Connected, XenbusState.Connected, VbdNodes.Size(geometry)).ConfigureAwait(false);
        }
        catch (LinuxException failure)
        {
            _log.ImageFailed($"the size cannot be told: {failure.Message}");
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
