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
internal sealed class VbdImage(
    BackendServices services, VbdAddress address, VbdConfiguration configuration, VbdLog log, int firstWorker)
{
    /// <summary>
    /// How long a device that goes waits for its image. The toolstack waits 10 s for state 6, and the rings may take 7 s
    /// of that. The hotplug script waits longer.
    /// </summary>
    public static readonly TimeSpan ClosePatience = TimeSpan.FromSeconds(2);

    private static readonly TimeSpan MeasurePatience = TimeSpan.FromSeconds(2);

    private readonly Lock _lock = new();
    private Task<bool> _measuring = Task.FromResult(false);
    private Task<OpenDisk>? _opening;
    private Task _closing = Task.CompletedTask;
    private bool _hasEnded;

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

    /// <summary>True if the image is open or being opened.</summary>
    public bool IsOpen
    {
        get
        {
            lock (_lock) return _opening is { IsFaulted: false };
        }
    }

    /// <summary>Ends when the image is closed for which <see cref="CloseAsync(TimeSpan, bool)"/> was called last.</summary>
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
    /// Measures the image again. Returns true if its size has changed, and false also if the storage does not answer in
    /// time. The vbd's loop only.
    /// </summary>
    /// <exception cref="LinuxException">The size cannot be read.</exception>
    public async Task<bool> RemeasureAsync(IBlockImage image)
    {
        if (_measuring.IsCompleted) _measuring = Task.Run(image.Remeasure);
        await Task.WhenAny(_measuring, Task.Delay(MeasurePatience)).ConfigureAwait(false);
        return _measuring.IsCompleted && await _measuring.ConfigureAwait(false);
    }

    /// <summary>Enlarges an image in use.</summary>
    /// <param name="image">The image.</param>
    /// <param name="loop">The loop of one of its queues.</param>
    /// <param name="byteCount">The new size in bytes.</param>
    /// <exception cref="TargetException">The image cannot have that size.</exception>
    public static Task EnlargeAsync(IBlockImage image, BlockLoop loop, long byteCount)
    {
        long now = (long)image.Geometry.SectorCount * BlockRequest.SectorSize;
        if (byteCount < now)
            throw new TargetException(
                $"a disk in use can only grow, and it has {now} bytes now",
                "detach it and use 'ublkback image resize --shrink'");
        if (byteCount % image.Geometry.SectorSize != 0)
            throw new TargetException($"{byteCount} bytes are not whole sectors of {image.Geometry.SectorSize} bytes");
        return loop.InvokeAsync(() => image.ResizeAsync(byteCount));
    }

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
            log.ImageOpened(
                configuration.Target, image.Geometry.SectorCount / 2048,
                configuration.IsReadOnly ? "read-only" : "writable");
            return new SharedImage(image, CreateOwnWorker(image), log.NotReleased);
        }
        catch (TargetException failure)
        {
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
