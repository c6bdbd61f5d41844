using Ublkback.Backend.Connections;
using Ublkback.Backend.Report;
using Ublkback.Backend.Xenbus;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;

namespace Ublkback.Backend.Vbds;

/// <summary>
/// The image of a vbd and its export for QEMU. A helper thread opens the image as soon as the vbd is found. It stays
/// open over reconnects, and is closed when the device goes.
/// </summary>
/// <remarks>
/// Any thread: the vbd's loop, the hotplug request and the control socket call it, and none waits for the storage
/// while it holds the lock. Invariants: at most one open is in flight or successful; its export is closed before its
/// reference on the image is dropped.
/// </remarks>
internal sealed class DiskImage(
    BackendServices services, VbdAddress address, VbdConfiguration configuration, VbdLog log, int firstWorker)
{
    /// <summary>
    /// How long a removed device waits for its image to close. The toolstack waits 10 s for state 6, and the rings may
    /// take 7 s of that. The hotplug script waits longer.
    /// </summary>
    public static readonly TimeSpan ClosePatience = TimeSpan.FromSeconds(2);

    private readonly Lock _lock = new();
    private Task<OpenDisk>? _opening;
    private Task _closing = Task.CompletedTask;
    private bool _hasEnded;
    private volatile string? _refusal;

    /// <summary>
    /// Returns the image; opens it unless it is open or being opened. After a failure the next call tries again.
    /// </summary>
    /// <exception cref="TargetException">The image cannot be opened, or the vbd has ended.</exception>
    public async Task<SharedImage> OpenAsync()
    {
        Task<OpenDisk> opening;
        lock (_lock)
        {
            if (_hasEnded) throw new TargetException($"the device {address} is gone");
            if (_opening is null or { IsFaulted: true }) _opening = Task.Run(OpenOnceAsync);
            opening = _opening;
        }

        return (await opening.ConfigureAwait(false)).Image;
    }

    /// <summary>The geometry; null unless the image is open now.</summary>
    public ImageGeometry? Geometry => OpenNow?.Image.Image.Geometry;

    /// <summary>The reason why the image could not be opened; null if it was, or was not tried.</summary>
    public string? Refusal => _refusal;

    /// <summary>True if the image is open or being opened.</summary>
    public bool IsOpen
    {
        get
        {
            lock (_lock) return _opening is { IsFaulted: false };
        }
    }

    /// <summary>Completes when the image of the last <see cref="CloseAsync(TimeSpan, bool)"/> is closed.</summary>
    public Task Closed
    {
        get
        {
            lock (_lock) return _closing;
        }
    }

    /// <summary>The socket of the export for QEMU; null if there is none.</summary>
    public string? QemuSocket => OpenNow?.Export?.Socket;

    /// <summary>Changes arguments of a hook of the open image.</summary>
    /// <exception cref="TargetException">There is no such hook, or it refuses the arguments.</exception>
    public void Change(HookTarget change)
    {
        OpenDisk open = OpenNow ?? throw new TargetException("the image is not open");
        if (open.Image.Image is not BlockPipeline pipeline) throw new TargetException("the disk has no hooks");
        pipeline.Change(change);
    }

    /// <summary>
    /// True if failed requests are held until the administrator resumes them. Known once the image is open.
    /// </summary>
    public bool HoldsFailed { get; private set; }

    /// <summary>
    /// Closes the export and drops the vbd's reference. Waits until the image is closed, but only for some seconds,
    /// since its storage may have stalled; then the log says so.
    /// </summary>
    /// <param name="patience">The time to wait.</param>
    /// <param name="isEnd">True if the vbd ends, and the image is not to be opened again.</param>
    public async Task CloseAsync(TimeSpan patience, bool isEnd = false)
    {
        Task closing;
        lock (_lock)
        {
            if (_opening is Task<OpenDisk> opening) _closing = CloseAsync(opening);
            _opening = null;
            _hasEnded |= isEnd;
            closing = _closing;
        }

        if (await Task.WhenAny(closing, Task.Delay(patience)).ConfigureAwait(false) != closing)
            log.StillOpen(configuration.Target, patience);
    }

    private OpenDisk? OpenNow
    {
        get
        {
            lock (_lock) return _opening is { IsCompletedSuccessfully: true } open ? open.Result : null;
        }
    }

    private static async Task CloseAsync(Task<OpenDisk> opening)
    {
        try
        {
            (SharedImage image, QemuExport? export) = await opening.ConfigureAwait(false);
            if (export is not null) await export.DisposeAsync().ConfigureAwait(false);
            image.DropReference();
            await image.Closed.ConfigureAwait(false);
        }
        catch (TargetException)
        {
            // The image was never open.
        }
    }

    private async Task<OpenDisk> OpenOnceAsync()
    {
        SharedImage image = Open();
        Worker worker = image.ChooseWorker(services.Workers, firstWorker, queue: 0);
        image.Image.UseOn(worker);
        return new OpenDisk(
            image, await QemuExport.OpenAsync(services, address, image, worker, log).ConfigureAwait(false));
    }

    private SharedImage Open()
    {
        try
        {
            ImageOpening opening = new(
                $"domain {address.Domid} as {address.DeviceName}", address.DiskId, configuration.IsReadOnly,
                configuration.AllowsDiscard, configuration.SharingGroup, log.ImageFailed,
                address.Domid, address.DeviceName, services.Journals.Path);
            IBlockImage image = services.Catalog.Open(ParseTarget(), opening);
            _refusal = null;
            log.ImageOpened(
                configuration.Target, image.Geometry.SectorCount / 2048,
                configuration.IsReadOnly ? "read-only" : "writable");
            return new SharedImage(image, CreateOwnWorker(image), log.NotReleased);
        }
        catch (TargetException failure)
        {
            _refusal = failure.Message;
            log.ImageRefused(failure.Message);
            throw;
        }
    }

    private OwnWorker? CreateOwnWorker(IBlockImage image)
    {
        if (image.NeedsOwnWorkerFor is not string suspects) return null;
        try
        {
            return new OwnWorker(address.ToString(), suspects, log.ImageFailed, services.CopyBatches.Forget);
        }
        catch (LinuxException failure)
        {
            image.DisposeAsync().AsTask().GetAwaiter().GetResult();
            throw new TargetException($"cannot start a worker thread for {suspects}: {failure.Message}", failure);
        }
    }

    // A mode w! in the store is the old spelling of share=unsafe.
    private BlockTarget ParseTarget()
    {
        BlockTarget target = BlockTarget.Parse(configuration.Target);
        HoldsFailed = target.HoldsFailed;
        return configuration.Mode == "w!" ? target.WithDefault("share", "unsafe") : target;
    }

    private sealed record OpenDisk(SharedImage Image, QemuExport? Export);
}
