using Ublkback.Backend.Requests;
using Ublkback.Block;
using Ublkback.Linux.Workers;

namespace Ublkback.Backend.Connections;

/// <summary>
/// An open image, shared by its vbd, by each <see cref="BlkifConnection"/> that serves it and by its
/// <see cref="QemuExport"/>. Closed when the last reference is dropped. Any thread.
/// </summary>
/// <param name="image">The image.</param>
/// <param name="ownWorker">The worker that serves nothing else; null if the image shares the daemon's.</param>
/// <param name="notReleased">Takes the reason why the image or the worker could not be closed.</param>
internal sealed class SharedImage(IBlockImage image, OwnWorker? ownWorker, Action<string> notReleased)
    : ReferenceCounted
{
    private readonly TaskCompletionSource _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>The image.</summary>
    public IBlockImage Image => image;

    /// <summary>Returns the worker for one queue: the image's own, or one of the shared ones.</summary>
    public Worker ChooseWorker(IReadOnlyList<Worker> workers, int first, int queue) =>
        ownWorker?.Worker ?? workers[(first + (image.AllowsManyWorkers ? queue : 0)) % workers.Count];

    /// <summary>Ends when the image is closed.</summary>
    public Task Closed => _closed.Task;

    /// <inheritdoc/>
    protected override void Release() => _ = Task.Run(async () =>
    {
        await ReleaseAsync(image).ConfigureAwait(false);
        if (ownWorker is not null) await ReleaseAsync(ownWorker).ConfigureAwait(false);
        _closed.SetResult();
    });

    private async Task ReleaseAsync(IAsyncDisposable part)
    {
        try
        {
            await part.DisposeAsync().ConfigureAwait(false);
        }
        catch (Exception failure)
        {
            notReleased($"{part.GetType().Name}: {failure.Message}");
        }
    }
}
