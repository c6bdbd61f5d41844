using System.Threading.Channels;
using Ublkback.Backend.Connections;
using Ublkback.Backend.Report;
using Ublkback.Backend.Xenbus;
using Ublkback.XenStore;

namespace Ublkback.Backend.Vbds;

/// <summary>
/// The loop of a vbd, from the moment it is found until its directory is gone: it waits for a wake-up, reads the store,
/// asks <see cref="VbdStateMachine"/>, takes one step of <see cref="VbdSteps"/>, and repeats until it can only wait.
/// </summary>
/// <remarks>
/// <see cref="RunAsync"/> takes one step at a time, and nothing else takes any. <see cref="Wake"/> and
/// <see cref="Stop"/> can be called on any thread. Invariants: the store is read again before each decision; a step
/// that needs the image starts only when opening has ended, so that a device can go while its storage stalls.
/// </remarks>
#pragma warning disable CA1001 // a cancellation source without a timer holds nothing, and Stop may come late
internal sealed class VbdLoop(
    BackendServices services, VbdAddress address, VbdConfiguration configuration, VbdLog log, DiskImage image,
    VbdSteps steps, VbdResize resize)
#pragma warning restore CA1001
{
    private readonly string _path = $"{services.Home}/{address.RelativePath}";
    private readonly CancellationTokenSource _stopping = new();

    private readonly Channel<bool> _signal =
        Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });

    private readonly TaskCompletionSource _left = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private volatile bool _isLeaving;
    private Task<SharedImage>? _opening; // the loop waits for it to connect or attach

    /// <summary>The backend's state when the loop last read it.</summary>
    public XenbusState? BackendState { get; private set; }

    /// <summary>The frontend's state when the loop last read it.</summary>
    public XenbusState? FrontendState { get; private set; }

    /// <summary>Asks the loop to read the store again. Any thread.</summary>
    public void Wake() => _signal.Writer.TryWrite(true);

    /// <summary>
    /// Tells the loop that the toolstack removes the device. Completes when the rings are released and the image is
    /// closed, or closing waits for the storage. Any thread.
    /// </summary>
    public Task LeaveAsync()
    {
        _isLeaving = true;
        Wake();
        return _left.Task;
    }

    /// <summary>Ends the loop, which leaves a connected ring to the next daemon. Any thread, once.</summary>
    public void Stop()
    {
        _stopping.Cancel();
        Wake();
    }

    /// <summary>Runs until the device is gone or <see cref="Stop"/>.</summary>
    public async Task RunAsync()
    {
        log.Found(configuration.Target);
        XenStoreWatch? watch = null;
        Task pump = Task.CompletedTask;
        try
        {
            watch = await services.Store.WatchAsync($"{configuration.FrontendPath}/state").ConfigureAwait(false);
            pump = PumpAsync(watch);
            Wake();
            while (await StepUntilIdleAsync().ConfigureAwait(false))
                await _signal.Reader.ReadAsync().ConfigureAwait(false);
        }
        finally
        {
            await _stopping.CancelAsync().ConfigureAwait(false);
            await pump.ConfigureAwait(false);
            if (watch is not null) await UnwatchAsync(watch).ConfigureAwait(false);
            _left.TrySetResult();
        }
    }

    private async Task PumpAsync(XenStoreWatch watch)
    {
        try
        {
            while (true)
            {
                await watch.WaitAsync(_stopping.Token).ConfigureAwait(false);
                steps.OnFrontendWrote();
                Wake();
            }
        }
        catch (OperationCanceledException)
        {
            // The vbd ends.
        }
    }

    private async Task UnwatchAsync(XenStoreWatch watch)
    {
        try
        {
            await services.Store.UnwatchAsync(watch).ConfigureAwait(false);
        }
        catch (XenStoreException)
        {
            // The store is gone, and the watch with it.
        }
    }

    // Returns false when the vbd has ended.
    private async Task<bool> StepUntilIdleAsync()
    {
        while (!_stopping.IsCancellationRequested)
        {
            try
            {
                await resize.ServeAsync(steps.Connection).ConfigureAwait(false);
                VbdView view = await ReadViewAsync().ConfigureAwait(false);
                if (await IsOutdatedAsync().ConfigureAwait(false))
                {
                    log.Changed();
                    await steps.DetachAsync().ConfigureAwait(false);
                    return false;
                }

                VbdAction action = VbdStateMachine.Decide(view);
                switch (action)
                {
                    case VbdAction.Wait:
                        if (_isLeaving && steps.Connection is null && !image.IsOpen) _left.TrySetResult();
                        return true;
                    case VbdAction.Connect or VbdAction.Attach:
                        Task<SharedImage> opening = _opening ??= StartOpening();
                        if (!opening.IsCompleted) return true; // its end wakes the loop
                        _opening = null;
                        await (action == VbdAction.Connect ? steps.ConnectAsync(opening)
                            : steps.AttachAsync(opening, view.IsOnline)).ConfigureAwait(false);
                        break;
                    case VbdAction.Offer:
                        await steps.OfferAsync(FrontendState).ConfigureAwait(false);
                        break;
                    case VbdAction.Reclaim:
                        await steps.ReclaimAsync().ConfigureAwait(false);
                        break;
                    case VbdAction.Close:
                        await steps.CloseAsync().ConfigureAwait(false);
                        break;
                    case VbdAction.Disconnect:
                        await steps.DisconnectAsync().ConfigureAwait(false);
                        break;
                    case VbdAction.Restart:
                        await steps.RestartAsync(FrontendState).ConfigureAwait(false);
                        break;
                    case VbdAction.Release:
                        await steps.ReleaseAsync().ConfigureAwait(false);
                        break;
                    case VbdAction.Forget:
                        await steps.ForgetAsync().ConfigureAwait(false);
                        return false;
                }
            }
            catch (XenStoreException failure)
            {
                // All watches fire when the store is connected again, which wakes the loop.
                log.StoreFailed(failure.Message);
                return true;
            }
        }

        await steps.DetachAsync().ConfigureAwait(false);
        return false;
    }

    // Without a transaction the toolstack may write the state before the target or the mode. The directory starts
    // another loop with what is written then.
    private async Task<bool> IsOutdatedAsync()
    {
        if (steps.Connection is not null || BackendState is not (XenbusState.Initialising or XenbusState.InitWait))
            return false;
        try
        {
            VbdConfiguration? now =
                await VbdConfiguration.ReadAsync(services.Store, _path, address).ConfigureAwait(false);
            return now is not null && now != configuration;
        }
        catch (FrontendException)
        {
            return true; // the directory logs it
        }
    }

    private Task<SharedImage> StartOpening()
    {
        Task<SharedImage> opening = image.OpenAsync();
        if (!opening.IsCompleted) _ = opening.ContinueWith(_ => Wake(), TaskScheduler.Default);
        return opening;
    }

    private async Task<VbdView> ReadViewAsync()
    {
        XenStoreClient store = services.Store;
        BackendState = XenbusStates.Parse(await store.ReadAsync($"{_path}/state").ConfigureAwait(false));
        string? frontend = await store.ReadAsync($"{configuration.FrontendPath}/state").ConfigureAwait(false);
        FrontendState = XenbusStates.Parse(frontend);
        if (FrontendState == XenbusState.Unknown) log.OddFrontendState(FrontendParameters.Quote(frontend!));
        bool isOnline = !_isLeaving && await store.ReadAsync($"{_path}/online").ConfigureAwait(false) == "1";
        bool isServing = steps.Connection is not null;
        bool hasOtherRings = isServing && FrontendState is XenbusState.Initialised or XenbusState.Connected
            && await steps.HasOtherRingsAsync().ConfigureAwait(false);
        return new VbdView(
            BackendState, isOnline, FrontendState, steps.IsOffered, steps.WasOffered, services.Kernel.Holds(address),
            isServing, !isServing && services.Journals.Has(address), steps.HasFailed, image.IsOpen,
            hasOtherRings);
    }
}
