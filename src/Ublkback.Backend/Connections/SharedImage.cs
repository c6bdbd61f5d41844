using Ublkback.Backend.Requests;
using Ublkback.Block;
using Ublkback.Linux.Workers;

namespace Ublkback.Backend.Connections;

/// <summary>An open image, held by its vbd and by each blkif that serves it; closed when the last lets go.</summary>
internal sealed class SharedImage(IBlockImage image, OwnWorker? ownWorker) : ReferenceCounted
{
    private readonly TaskCompletionSource _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>The image.</summary>
    public IBlockImage Image => image;

    /// <summary>The worker that serves this image alone; null when it shares the others'.</summary>
    public OwnWorker? OwnWorker => ownWorker;

    /// <summary>The door by which QEMU comes to it, which has a reference; null when there is none.</summary>
    public QemuExport? Door { get; set; }

    /// <summary>The worker for one of its queues, of those that several images share unless it has its own.</summary>
    public Worker ChooseWorker(IReadOnlyList<Worker> workers, int first, int queue) =>
        ownWorker?.Worker ?? workers[(first + (image.AllowsManyWorkers ? queue : 0)) % workers.Count];

    /// <summary>Ends when the image is closed.</summary>
    public Task Closed => _closed.Task;

    /// <inheritdoc/>
    protected override void Release() => _ = Task.Run(async () =>
    {
        await image.DisposeAsync().ConfigureAwait(false);
        if (ownWorker is not null) await ownWorker.DisposeAsync().ConfigureAwait(false);
        _closed.SetResult();
    });
}
