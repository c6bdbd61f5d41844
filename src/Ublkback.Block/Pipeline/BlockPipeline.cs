namespace Ublkback.Block;

/// <summary>Hooks over an image; to everybody else, an image.</summary>
[DataPath]
public sealed class BlockPipeline : IBlockImage, IWorkerNeeds, IImageHealth, IResizableImage, IDiskObserver
{
    private readonly IReadOnlyList<(string Name, BlockHook Hook)> _hooks;
    private readonly IBlockImage _image;
    private readonly Action<string> _warn;
    private readonly HookSeam _top;

    /// <summary>Puts hooks, the topmost first, over an image.</summary>
    /// <exception cref="TargetException">A hook cannot work on what lies below it.</exception>
    public BlockPipeline(IReadOnlyList<(string Name, BlockHook Hook)> hooks, IBlockImage image, Action<string> warn)
    {
        ArgumentNullException.ThrowIfNull(hooks);
        _hooks = hooks;
        _image = image;
        _warn = warn;
        HookSeam next = new(hooks.Count + 1, Name(hooks.Count - 1), "the image", null, null, image, warn);
        for (int i = hooks.Count - 1; i >= 0; i--)
            next = new HookSeam(i + 1, Name(i - 1), Name(i)!, hooks[i].Hook, next, image, warn);
        _top = next;

        string? Name(int index) => index < 0 ? null : $"hook {hooks[index].Name}";
    }

    /// <inheritdoc/>
    public ImageGeometry Geometry => _top.Geometry;

    /// <inheritdoc/>
    public string Identity => _image.Identity;

    /// <inheritdoc/>
    // off the path: the start
    public bool AllowsManyWorkers => _image.AllowsManyWorkers && _hooks.All(hook => hook.Hook.AllowsManyWorkers);

    /// <inheritdoc/>
    // off the path: the start
    public string? NeedsOwnWorkerFor
    {
        get
        {
            IEnumerable<string?> names = _hooks.Where(hook => hook.Hook.NeedsOwnWorker)
                .Select(hook => $"hook {hook.Name}");
            string all = string.Join(", ", names.Append(_image.NeedsOwnWorkerFor).Where(name => name is not null));
            return all.Length == 0 ? null : all;
        }
    }

    /// <inheritdoc/>
    public void UseOn(BlockLoop loop) => _image.UseOn(loop);

    /// <inheritdoc/>
    public string? Trouble => // off the path: a report
        _hooks.Select(hook => hook.Hook.Trouble).FirstOrDefault(trouble => trouble is not null) ?? _image.Trouble;

    /// <inheritdoc/>
    public bool HasLostWrites => _image.HasLostWrites;

    /// <inheritdoc/>
    public ValueTask<BlockStatus> HandleAsync(BlockRequest request) => _top.HandleAsync(request);

    /// <inheritdoc/>
    public void OnEvent(DiskEvent happened)
    {
        foreach ((string name, BlockHook hook) in _hooks)
        {
            try
            {
                hook.OnEvent(happened);
            }
            catch (Exception failure)
            {
                _warn($"hook {name} failed when the disk was {happened}: {failure.GetType().Name}: {failure.Message}");
            }
        }

        _image.OnEvent(happened);
    }

    /// <inheritdoc/>
    public Task ResizeAsync(long byteCount)
    {
        // What hooks keep for themselves, they keep.
        long kept = ((long)_image.Geometry.SectorCount - (long)Geometry.SectorCount) * BlockRequest.SectorSize;
        return _image.ResizeAsync(byteCount + kept);
    }

    /// <inheritdoc/>
    public bool Remeasure()
    {
        ImageGeometry before = Geometry;
        if (_image.Remeasure()) _top.Remeasure();
        return Geometry != before;
    }

    /// <summary>Changes arguments of the hooks of a name. Any thread.</summary>
    /// <exception cref="TargetException">There is none, or it cannot be changed so.</exception>
    public void Change(HookTarget change) // off the path: control
    {
        ArgumentNullException.ThrowIfNull(change);
        (string Name, BlockHook Hook)[] hooks = [.. _hooks.Where(hook => hook.Name == change.Name)];
        if (hooks.Length == 0)
            throw new TargetException(
                $"the disk has no hook {change.Name}, but {string.Join(", ", _hooks.Select(hook => hook.Name))}");
        foreach ((_, BlockHook hook) in hooks) hook.Change(change);
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync() // off the path: the end
    {
        foreach ((string name, BlockHook hook) in _hooks)
        {
            try
            {
                await hook.DisposeAsync().ConfigureAwait(false);
            }
            catch (Exception failure)
            {
                _warn($"hook {name} failed when it was to end: {failure.GetType().Name}: {failure.Message}");
            }
        }

        await _image.DisposeAsync().ConfigureAwait(false);
    }
}
