using Ublkback.Block;

namespace Ublkback.Backend;

/// <summary>
/// The image of a vbd: opened on a helper thread as soon as the vbd is found, kept over reconnects, let go at its end.
/// Used by the vbd's own loop and by the hotplug request, which may both ask for it.
/// </summary>
internal sealed class VbdImage(BackendServices services, VbdAddress address, VbdConfiguration configuration, VbdLog log)
{
    private readonly Lock _lock = new();
    private Task<SharedImage>? _opening;

    /// <summary>
    /// The open image; opens it unless it is open or being opened. After a failure the next call tries again.
    /// </summary>
    /// <exception cref="TargetException">It cannot be opened.</exception>
    public Task<SharedImage> OpenAsync()
    {
        lock (_lock)
        {
            if (_opening is null or { IsFaulted: true }) _opening = Task.Run(Open);
            return _opening;
        }
    }

    /// <summary>The geometry, if the image is open now.</summary>
    public ImageGeometry? Geometry
    {
        get
        {
            lock (_lock) return _opening is { IsCompletedSuccessfully: true } open ? open.Result.Image.Geometry : null;
        }
    }

    /// <summary>Drops the vbd's reference, and waits until the image is closed when that was the last.</summary>
    public async Task CloseAsync()
    {
        Task<SharedImage>? opening;
        lock (_lock) (opening, _opening) = (_opening, null);
        if (opening is null) return;
        try
        {
            SharedImage image = await opening.ConfigureAwait(false);
            image.DropReference();
            await image.Closed.ConfigureAwait(false);
        }
        catch (TargetException)
        {
            // It never was open.
        }
    }

    private SharedImage Open()
    {
        try
        {
            ImageOpening opening = new(
                $"domain {address.Domid} as {address.DeviceName}", address.DiskId, configuration.IsReadOnly,
                configuration.AllowsDiscard, configuration.SharingGroup, log.ImageFailed);
            IBlockImage image = services.Schemes.Open(TargetOf(configuration), opening);
            log.ImageOpened(
                configuration.Target, image.Geometry.SectorCount / 2048,
                configuration.IsReadOnly ? "read-only" : "writable");
            return new SharedImage(image);
        }
        catch (TargetException failure)
        {
            log.ImageRefused(failure.Message);
            throw;
        }
    }

    // A mode w! in the store is the old spelling of share=unsafe.
    private static string TargetOf(VbdConfiguration configuration) =>
        configuration.Mode != "w!" || configuration.Target.Contains("share=", StringComparison.Ordinal)
            ? configuration.Target
            : configuration.Target + (configuration.Target.Contains('?', StringComparison.Ordinal) ? "&" : "?") + "share=unsafe";
}
