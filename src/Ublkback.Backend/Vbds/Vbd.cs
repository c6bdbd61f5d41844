using Ublkback.Backend.Connections;
using Ublkback.Backend.Report;
using Ublkback.Backend.Xenbus;
using Ublkback.Block;

namespace Ublkback.Backend.Vbds;

/// <summary>
/// One vbd of this daemon, as the rest of the daemon sees it: it assembles the parts of the vbd and passes calls on.
/// </summary>
/// <remarks>
/// Any thread can call it. Nothing here changes the vbd's state: <see cref="VbdLoop"/> alone does, and it is woken.
/// </remarks>
public sealed class Vbd
{
    private readonly VbdConfiguration _configuration;
    private readonly DiskImage _image;
    private readonly VbdResize _resize;
    private readonly VbdSteps _steps;
    private readonly VbdLoop _loop;

    /// <summary>
    /// Creates a vbd; <see cref="RunAsync"/> starts it. Its queues are spread over the workers, beginning with
    /// <paramref name="firstWorker"/>.
    /// </summary>
    public Vbd(BackendServices services, VbdAddress address, VbdConfiguration configuration, int firstWorker)
    {
        _configuration = configuration;
        Address = address;
        string path = $"{services.Home}/{address.RelativePath}";
        VbdLog log = new(services.Logger, address);
        VbdNodes nodes = new(services.Store, path);
        BlkifConnector connector = new(services, address, configuration, log, Statistics, firstWorker);
        _image = new DiskImage(services, address, configuration, log, firstWorker);
        _resize = new VbdResize(_image, nodes, log, Wake);
        _steps = new VbdSteps(services, address, configuration, log, nodes, _image, connector, _resize, Wake);
        _loop = new VbdLoop(services, address, configuration, log, _image, _steps, _resize);
    }

    /// <summary>The vbd's address.</summary>
    public VbdAddress Address { get; }

    /// <summary>The target that the toolstack wrote, with its hooks.</summary>
    public string Target => _configuration.Target;

    /// <summary>Counters of all connections since the vbd was found.</summary>
    public VbdStatistics Statistics { get; } = new();

    /// <summary>The socket of the export for QEMU; null if there is none.</summary>
    public string? QemuSocket => _image.QemuSocket;

    /// <summary>Describes the vbd for the administrator. May be a moment old.</summary>
    public VbdSummary Summarize()
    {
        BlkifConnection? connection = _steps.Connection;
        return new VbdSummary(
            Address, _configuration.Target, _configuration.IsReadOnly, _loop.BackendState, _loop.FrontendState,
            connection?.QueueCount, connection?.SlotCount, connection?.PersistentPages, _image.Geometry,
            connection?.Trouble ?? _image.Refusal, connection?.FindOldestAge(), Statistics);
    }

    /// <summary>Asks the loop to read the store again.</summary>
    public void Wake() => _loop.Wake();

    /// <summary>Ends the loop, which leaves a connected ring to the next daemon. Call it once.</summary>
    public void Stop() => _loop.Stop();

    /// <summary>
    /// Tells the vbd that the toolstack removes the device. Completes when the rings are released and the image is
    /// closed.
    /// </summary>
    public async Task LeaveAsync()
    {
        await _loop.LeaveAsync().ConfigureAwait(false);
        await _image.Closed.ConfigureAwait(false);
    }

    /// <summary>Opens the image, if it is not open, for the hotplug script.</summary>
    /// <exception cref="TargetException">The image cannot be opened.</exception>
    public Task CheckTargetAsync() => _image.OpenAsync();

    /// <summary>Retries the requests that are held because the storage failed them.</summary>
    public void Resume() => _steps.Connection?.Resume();

    /// <summary>Changes arguments of a hook of the open image, until it is opened again.</summary>
    /// <exception cref="TargetException">There is no such hook, or it refuses the arguments.</exception>
    public void Change(HookTarget change) => _image.Change(change);

    /// <summary>Measures the image and reports a new size to the guest. Ends when that is done.</summary>
    public Task MeasureAsync() => _resize.RequestAsync();

    /// <summary>Enlarges the disk and reports the new size to the guest.</summary>
    /// <exception cref="TargetException">No guest is connected, or the image cannot have that size.</exception>
    public Task EnlargeAsync(long byteCount) => _resize.EnlargeAsync(_steps.Connection, byteCount);

    /// <summary>Runs the vbd until the device is gone or <see cref="Stop"/>.</summary>
    public Task RunAsync() => _loop.RunAsync();
}
