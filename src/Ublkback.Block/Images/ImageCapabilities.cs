namespace Ublkback.Block;

/// <summary>
/// Asks an image for a capability that it may lack, and then answers for it. Never for each request: what a request
/// needs is in <see cref="IBlockImage"/>.
/// </summary>
public static class ImageCapabilities
{
    /// <summary>The capabilities of an image.</summary>
    extension(IBlockImage image)
    {
        /// <summary><see cref="IWorkerNeeds.AllowsManyWorkers"/>.</summary>
        public bool AllowsManyWorkers => (image as IWorkerNeeds)?.AllowsManyWorkers ?? false;

        /// <summary><see cref="IWorkerNeeds.NeedsOwnWorkerFor"/>.</summary>
        public string? NeedsOwnWorkerFor => (image as IWorkerNeeds)?.NeedsOwnWorkerFor;

        /// <summary><see cref="IWorkerNeeds.UseOn"/>.</summary>
        public void UseOn(BlockLoop loop) => (image as IWorkerNeeds)?.UseOn(loop);

        /// <summary><see cref="IImageHealth.Trouble"/>.</summary>
        public string? Trouble => (image as IImageHealth)?.Trouble;

        /// <summary><see cref="IImageHealth.HasLostWrites"/>.</summary>
        public bool HasLostWrites => (image as IImageHealth)?.HasLostWrites ?? false;

        /// <summary><see cref="IDiskObserver.OnEvent"/>.</summary>
        public void OnEvent(DiskEvent happened) => (image as IDiskObserver)?.OnEvent(happened);

        /// <summary><see cref="IMeasuredImage.Remeasure"/>.</summary>
        public bool Remeasure() => (image as IMeasuredImage)?.Remeasure() ?? false;

        /// <summary><see cref="IResizableImage.ResizeAsync"/>.</summary>
        /// <exception cref="TargetException">The disk cannot be resized.</exception>
        public Task ResizeAsync(long byteCount) =>
            (image as IResizableImage)?.ResizeAsync(byteCount)
            ?? throw new TargetException("a disk of this kind cannot be resized from here");
    }
}
