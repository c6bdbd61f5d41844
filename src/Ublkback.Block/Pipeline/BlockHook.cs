namespace Ublkback.Block;

/// <summary>
/// Interposes on the requests of one disk. Each disk has a hook object of its own, made when the disk is opened and
/// disposed when it is gone.
/// </summary>
/// <remarks>
/// <code>
/// pass       return next.HandleAsync(request);
/// respond    return new(BlockStatus.IoError);
/// look at the answer, or take one's time:
///            BlockStatus status = await next.HandleAsync(request); … return status;
/// </code>
/// Unless <see cref="AllowsManyWorkers"/>, everything of a hook but its construction, <see cref="Measure"/> and its
/// disposal happens on one <see cref="BlockLoop"/>, so it needs no locks; and it must not block, since other disks
/// wait.
/// </remarks>
public abstract class BlockHook : IAsyncDisposable
{
    /// <summary>
    /// Whether the hook may be called on several workers at the same time, one for each queue of the disk.
    /// </summary>
    public virtual bool AllowsManyWorkers => false;

    /// <summary>Whether the disk is to have a worker of its own, since the hook may hold up its worker.</summary>
    public virtual bool NeedsOwnWorker => false;

    /// <summary>
    /// What keeps requests waiting in the hook, for people to read; null when nothing does. Any thread.
    /// </summary>
    public virtual string? Trouble => null;

    /// <summary>
    /// Size, sector sizes and access that the layers above see. Called when the disk is opened, and when what lies
    /// below has another size.
    /// </summary>
    /// <exception cref="TargetException">The hook cannot work on that; when the disk is opened, that is
    /// refused.</exception>
    public virtual ImageGeometry Measure(ImageGeometry below) => below;

    /// <summary>
    /// Handles one request, which is valid: inside the geometry that <see cref="Measure"/> gave. Called again before
    /// earlier calls have ended. The request is the hook's until the result is there; the hook may change it to pass it
    /// on, or pass on requests of its own. Results may come in any order, each exactly once.
    /// </summary>
    public abstract ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next);

    /// <summary>Learns what happens to the disk.</summary>
    public virtual void OnEvent(DiskEvent happened)
    {
    }

    /// <summary>Changes some of the hook's arguments while it runs. Any thread.</summary>
    /// <exception cref="TargetException">An argument cannot be changed, or not to that; nothing was.</exception>
    public virtual void Change(HookTarget arguments) =>
        throw new TargetException("it cannot be changed while it runs");

    /// <inheritdoc/>
    public virtual ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return default;
    }
}
