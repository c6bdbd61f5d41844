using Ublkback.Block;

namespace Ublkback.Backend;

/// <summary>An open image, held by its vbd and by each blkif that serves it; closed when the last lets go.</summary>
public sealed class SharedImage(IBlockImage image) : ReferenceCounted
{
    private readonly TaskCompletionSource _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>The image.</summary>
    public IBlockImage Image => image;

    /// <summary>Ends when the image is closed.</summary>
    public Task Closed => _closed.Task;

    /// <inheritdoc/>
    protected override void Release() => _ = Task.Run(async () =>
    {
        await image.DisposeAsync().ConfigureAwait(false);
        _closed.SetResult();
    });
}
