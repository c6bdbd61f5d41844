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
/// The steps of a vbd, a method for each <see cref="VbdAction"/>, and the facts that they leave for the next decision.
/// </summary>
/// <remarks>
/// Methods run on the vbd's loop, one at a time; any thread can read the properties. Invariants: a connection exists
/// exactly while its rings are served; the state of a connected vbd goes to Closing only after its frontend's, since
/// blkfront would give up the disk; a failure is recorded before it is written to the store, which may fail too.
/// </remarks>
internal sealed class VbdSteps(
    BackendServices services, VbdAddress address, VbdConfiguration configuration, VbdLog log, VbdNodes nodes,
    DiskImage image, BlkifConnector connector, VbdResize resize, Action wake)
{
    private static readonly TimeSpan AttachRetryDelay = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan DetachPatience = TimeSpan.FromSeconds(1); // guests wait for the next daemon
    private static readonly TimeSpan SuspectsPatience = TimeSpan.FromSeconds(10);

    private const int NoWrite = -1;

    private volatile bool _hasFailed; // to take over
    private volatile int _frontendWrites; // as far as watches tell
    private volatile int _failedWrite = NoWrite; // the last one before connecting failed
    private FrontendParameters? _served; // the rings of the connection
    private int _comparedWrite = NoWrite; // the last one before these were compared
    private bool _hasOtherRings;

    /// <summary>The connection to the frontend; null while there is none.</summary>
    public BlkifConnection? Connection { get; private set; }

    /// <summary>True if the features were offered since the device was new or closed.</summary>
    public bool IsOffered { get; private set; }

    /// <summary>True if the features were ever offered.</summary>
    public bool WasOffered { get; private set; }

    /// <summary>
    /// True if connecting to this frontend failed, and is not to be tried again now: not before it writes its state
    /// again, or some time after a failed attempt to take over.
    /// </summary>
    public bool HasFailed => _hasFailed || _failedWrite == _frontendWrites;

    private string ErrorDirectory => $"{services.Home}/error/{address.RelativePath}";

    /// <summary>Learns that the frontend has written its state. Any thread.</summary>
    public void OnFrontendWrote() => Interlocked.Increment(ref _frontendWrites);

    /// <summary>
    /// Returns true if the frontend names other rings than those that are served. It started anew then, though the
    /// states that it wrote in between were never seen.
    /// </summary>
    public async Task<bool> HasOtherRingsAsync()
    {
        int frontendWrites = _frontendWrites;
        if (_served is null || frontendWrites == _comparedWrite) return _hasOtherRings;
        try
        {
            _hasOtherRings = !(await ReadFrontendAsync().ConfigureAwait(false)).HasRingsOf(_served);
        }
        catch (FrontendException)
        {
            _hasOtherRings = false; // it names none
        }

        _comparedWrite = frontendWrites;
        return _hasOtherRings;
    }

    /// <summary>Offers the features to the frontend, and starts to open the image.</summary>
    public async Task OfferAsync(XenbusState? frontend)
    {
        connector.ReleaseFromKernel();
        bool hasNoRings = frontend is XenbusState.Initialising or XenbusState.InitWait;
        if (hasNoRings) services.Journals.Remove(address);
        _ = OpenAheadAsync();
        await nodes.SwitchAsync(XenbusState.InitWait, VbdNodes.Offer(services.OfferedQueues)).ConfigureAwait(false);
        IsOffered = true;
        WasOffered = true;
        _hasFailed = false;
        _failedWrite = NoWrite;
    }

    /// <summary>
    /// Connects to the frontend's rings. If that fails, reports it where toolstacks look and closes the device.
    /// </summary>
    /// <param name="opening">A completed attempt to open the image; its failure fails this step.</param>
    public async Task ConnectAsync(Task<SharedImage> opening)
    {
        int frontendWrites = _frontendWrites;
        try
        {
            FrontendParameters frontend = await ReadFrontendAsync().ConfigureAwait(false);
            SharedImage open = await opening.ConfigureAwait(false);
            // An earlier daemon may have served the ring, and crashed before it wrote the state.
            await ServeAsync(open, frontend, mustGoOn: false).ConfigureAwait(false);
            log.Connected(frontend);
        }
        catch (Exception failure) when (IsExpected(failure))
        {
            _failedWrite = frontendWrites;
            log.ConnectFailed(failure.Message);
            await services.Store.WriteAsync($"{ErrorDirectory}/error", failure.Message).ConfigureAwait(false);
            await nodes.SwitchAsync(XenbusState.Closing).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Takes a connected ring over from an earlier daemon. If that fails, leaves the device as it is, and tries again
    /// later if the storage or the kernel refused.
    /// </summary>
    /// <param name="opening">A completed attempt to open the image; its failure fails this step.</param>
    /// <param name="isOnline">True if the toolstack wants the device to stay.</param>
    public async Task AttachAsync(Task<SharedImage> opening, bool isOnline)
    {
        try
        {
            FrontendParameters frontend = await ReadFrontendAsync().ConfigureAwait(false);
            SharedImage open = await opening.ConfigureAwait(false);
            await ServeAsync(open, frontend, mustGoOn: true).ConfigureAwait(false);
            log.Attached(frontend.Queues.Count);
        }
        catch (OtherRingsException failure) when (isOnline)
        {
            // The frontend started anew while no daemon looked, or it is another guest's.
            log.StartedAnew(failure.Message);
            await RestartAsync(XenbusState.Initialised).ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is TargetException or LinuxException)
        {
            _hasFailed = true;
            log.TakeOverDelayed(failure.Message);
            _ = TryAgainLaterAsync();
        }
        catch (Exception failure) when (IsExpected(failure))
        {
            _hasFailed = true;
            log.NotTakenOver(failure.Message);
        }
    }

    /// <summary>Takes the device back from the kernel's xen-blkback, and restores its nodes.</summary>
    public async Task ReclaimAsync()
    {
        connector.ReleaseFromKernel();
        SharedImage open = await image.OpenAsync().ConfigureAwait(false);
        await nodes.SwitchAsync(XenbusState.Connected, Describe(open)).ConfigureAwait(false);
    }

    /// <summary>Follows the frontend into Closing.</summary>
    public Task CloseAsync() => nodes.SwitchAsync(XenbusState.Closing);

    /// <summary>
    /// Completes the requests in flight, releases the rings and goes to Closed. The image stays open if the device
    /// stays.
    /// </summary>
    public async Task DisconnectAsync()
    {
        await EndConnectionAsync(isForSuccessor: false).ConfigureAwait(false);
        KillPoint.Reach("Disconnected");
        services.Journals.Remove(address);
        IsOffered = false;
        string? online = await services.Store.ReadAsync($"{services.Home}/{address.RelativePath}/online")
            .ConfigureAwait(false);
        if (online != "1") await ReleaseAsync().ConfigureAwait(false);
        await nodes.SwitchAsync(XenbusState.Closed).ConfigureAwait(false);
        log.Disconnected();
    }

    /// <summary>
    /// Completes the requests in flight, releases the rings and offers the features again, for a frontend that started
    /// anew. The states 5 and 6 are left out, since such a frontend would give the disk up.
    /// </summary>
    public async Task RestartAsync(XenbusState? frontend)
    {
        await EndConnectionAsync(isForSuccessor: false).ConfigureAwait(false);
        services.Journals.Remove(address);
        log.Disconnected();
        await OfferAsync(frontend).ConfigureAwait(false);
    }

    /// <summary>Closes the image of a closed device that is removed.</summary>
    public Task ReleaseAsync() => image.CloseAsync(DiskImage.ClosePatience);

    /// <summary>Releases everything of a device that is gone.</summary>
    public async Task ForgetAsync()
    {
        await EndConnectionAsync(isForSuccessor: false).ConfigureAwait(false);
        await image.CloseAsync(DiskImage.ClosePatience, isEnd: true).ConfigureAwait(false);
        services.Journals.Remove(address);
        await services.Store.RemoveAsync(ErrorDirectory).ConfigureAwait(false);
        log.Gone();
    }

    /// <summary>
    /// Releases everything, and leaves the journal and the states to the next daemon, or to a vbd with other nodes.
    /// </summary>
    public async Task DetachAsync()
    {
        if (Connection is not null)
        {
            await EndConnectionAsync(isForSuccessor: true).ConfigureAwait(false);
            log.Detached();
        }

        await image.CloseAsync(DetachPatience, isEnd: true).ConfigureAwait(false);
    }

    // With mustGoOn the rings need the journal of an earlier daemon.
    private async Task ServeAsync(SharedImage open, FrontendParameters frontend, bool mustGoOn)
    {
        BlkifConnection connection = await Task.Run(() => connector.ConnectAsync(
            open, frontend, mustGoOn, image.HoldsFailed, () => _ = resize.RequestAsync())).ConfigureAwait(false);
        if (connection.HasSuspects) await TakeSuspectsTurnAsync(connection).ConfigureAwait(false);
        Connection = connection;
        (_served, _hasOtherRings, _comparedWrite) = (frontend, false, NoWrite);
        connection.Start();
        KillPoint.Reach("Served");
        // A vbd that is taken over may be closing: its state stays then.
        await nodes.SwitchAsync(mustGoOn ? XenbusState.Connected : null, XenbusState.Connected, Describe(open))
            .ConfigureAwait(false);
        KillPoint.Reach("Connected");
    }

    // Bounded, so that a stalled image cannot block the other disks with suspects.
    private async Task TakeSuspectsTurnAsync(BlkifConnection connection)
    {
        if (!await services.SuspectsTurn.WaitAsync(SuspectsPatience).ConfigureAwait(false)) return;
        _ = Task.WhenAny(connection.Recovered, Task.Delay(SuspectsPatience))
            .ContinueWith(_ => services.SuspectsTurn.Release(), TaskScheduler.Default);
    }

    private async Task TryAgainLaterAsync()
    {
        await Task.Delay(AttachRetryDelay).ConfigureAwait(false);
        _hasFailed = false;
        wake();
    }

    private async Task EndConnectionAsync(bool isForSuccessor)
    {
        if (Connection is not BlkifConnection connection) return;
        await connection.CloseAsync(isForSuccessor).ConfigureAwait(false);
        Connection = null;
        (_served, _hasOtherRings) = (null, false);
    }

    private async Task OpenAheadAsync()
    {
        try
        {
            await image.OpenAsync().ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is TargetException or XenStoreException)
        {
            // The hotplug request or the connect step reports it.
        }
    }

    // In a transaction, so that a frontend that starts anew meanwhile is not connected to a mix of old and new nodes.
    private Task<FrontendParameters> ReadFrontendAsync() => services.Store.TransactAsync(
        store => FrontendParameters.ReadAsync(store, configuration.FrontendPath, services.OfferedQueues));

    private IEnumerable<(string Name, string? Value)> Describe(SharedImage open) =>
        VbdNodes.Describe(open.Image.Geometry, configuration.Info);

    private static bool IsExpected(Exception failure) =>
        failure is UserException or LinuxException;
}
