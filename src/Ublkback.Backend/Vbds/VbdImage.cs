using Ublkback.Backend.Connections;
using Ublkback.Backend.Report;
using Ublkback.Backend.Xenbus;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;

namespace Ublkback.Backend.Vbds;

/// <summary>
/// The image of a vbd: opened on a helper thread as soon as the vbd is found, kept over reconnects, let go at its end.
/// Used by the vbd's own loop and by the hotplug request, which may both ask for it.
/// </summary>
internal sealed class VbdImage(
    BackendServices services, VbdAddress address, VbdConfiguration configuration, VbdLog log, int firstWorker)
{
    private static readonly TimeSpan ClosePatience = TimeSpan.FromSeconds(1);

    private static readonly TimeSpan MeasurePatience = TimeSpan.FromSeconds(2);

    private readonly Lock _lock = new();
    private Task<bool> _measuring = Task.FromResult(false);
    private Task<SharedImage>? _opening;

    /// <summary>
    /// The open image; opens it unless it is open or being opened. After a failure the next call tries again.
    /// </summary>
    /// <exception cref="TargetException">It cannot be opened.</exception>
    public Task<SharedImage> OpenAsync()
    {
        lock (_lock)
        {
            if (_opening is null or { IsFaulted: true }) _opening = Task.Run(OpenOnceAsync);
            return _opening;
        }
    }

    /// <summary>The geometry, if the image is open now.</summary>
    public ImageGeometry? Geometry => OpenNow?.Image.Geometry;

    /// <summary>The socket at which QEMU finds the disk; null when there is none.</summary>
    public string? EmulatorSocket => OpenNow?.Door?.Socket;

    /// <summary>Changes arguments of a hook of the open image.</summary>
    /// <exception cref="TargetException">There is no such hook, or it cannot be changed so.</exception>
    public void Change(HookTarget change)
    {
        SharedImage open = OpenNow ?? throw new TargetException("the image is not open");
        if (open.Image is not BlockPipeline pipeline) throw new TargetException("the disk has no hooks");
        pipeline.Change(change);
    }

    /// <summary>
    /// Whether requests that the storage fails wait until it is mended; known once the image is open.
    /// </summary>
    public bool HoldsFailed { get; private set; }

    /// <summary>
    /// Looks whether an image has another size now. False also while its storage does not say. For one caller at a
    /// time.
    /// </summary>
    /// <exception cref="LinuxException">The size cannot be told.</exception>
    public async Task<bool> RemeasureAsync(IBlockImage image)
    {
        if (_measuring.IsCompleted) _measuring = Task.Run(image.Remeasure);
        await Task.WhenAny(_measuring, Task.Delay(MeasurePatience)).ConfigureAwait(false);
        return _measuring.IsCompleted && await _measuring.ConfigureAwait(false);
    }

    /// <summary>Makes the disk larger.</summary>
    /// <param name="image">The image.</param>
    /// <param name="loop">The loop of one of its queues.</param>
    /// <param name="byteCount">The new size in bytes.</param>
    /// <exception cref="TargetException">It cannot be done.</exception>
    public static Task EnlargeAsync(IBlockImage image, BlockLoop loop, long byteCount)
    {
        long now = (long)image.Geometry.SectorCount * BlockRequest.SectorSize;
        if (byteCount < now)
            throw new TargetException($"a disk in use can only grow, and it has {now} bytes now: detach it and use "
                + "'ublkback image resize --shrink'");
        if (byteCount % image.Geometry.SectorSize != 0)
            throw new TargetException($"{byteCount} bytes are not whole sectors of {image.Geometry.SectorSize} bytes");
        return loop.InvokeAsync(() => image.ResizeAsync(byteCount));
    }

    /// <summary>
    /// Drops the vbd's reference, and waits until the image is closed when that was the last; not for ever, since a
    /// storage may have stalled.
    /// </summary>
    public async Task CloseAsync()
    {
        Task<SharedImage>? opening;
        lock (_lock) (opening, _opening) = (_opening, null);
        if (opening is null) return;
        await Task.WhenAny(LetGoAsync(opening), Task.Delay(ClosePatience)).ConfigureAwait(false);
    }

    private SharedImage? OpenNow
    {
        get
        {
            lock (_lock) return _opening is { IsCompletedSuccessfully: true } open ? open.Result : null;
        }
    }

    private static async Task LetGoAsync(Task<SharedImage> opening)
    {
        try
        {
            SharedImage image = await opening.ConfigureAwait(false);
            if (image.Door is QemuExport door) await door.DisposeAsync().ConfigureAwait(false);
            image.DropReference();
            await image.Closed.ConfigureAwait(false);
        }
        catch (TargetException)
        {
            // It never was open.
        }
    }

    private async Task<SharedImage> OpenOnceAsync()
    {
        SharedImage image = Open();
        Worker worker = image.ChooseWorker(services.Workers, firstWorker, queue: 0);
        image.Door = await QemuExport.OpenAsync(services, address, image, worker, log).ConfigureAwait(false);
        return image;
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
            return new SharedImage(image, MakeOwnWorker(image));
        }
        catch (TargetException failure)
        {
            log.ImageRefused(failure.Message);
            throw;
        }
    }

    private OwnWorker? MakeOwnWorker(IBlockImage image)
    {
        if (image.NeedsOwnWorkerFor is not string who) return null;
        try
        {
            return new OwnWorker(address.ToString(), who, log.ImageFailed, services.CopyBatches.Forget);
        }
        catch (LinuxException failure)
        {
            image.DisposeAsync().AsTask().GetAwaiter().GetResult();
            throw new TargetException($"there can be no worker for {who}: {failure.Message}");
        }
    }

    // A mode w! in the store is the old spelling of share=unsafe.
    private BlockTarget ParseTarget()
    {
        BlockTarget target = BlockTarget.Parse(configuration.Target);
        HoldsFailed = target.HoldsFailed;
        return configuration.Mode == "w!" ? target.WithDefault("share", "unsafe") : target;
    }
}
