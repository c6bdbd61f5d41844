using Ublkback.Block;

namespace Ublkback.Plugins;

/// <summary>
/// Stands around a plugin's hook: before it a <see cref="GuardedImage"/>, behind it a <see cref="GuardedLower"/>.
/// </summary>
internal sealed class GuardedHook(string name, BlockHook hook, TimeSpan timeout, Action<string> warn) : BlockHook
{
    private GuardedLower? _exit;
    private GuardedImage? _entry;

    public override bool NeedsOwnWorker => true;

    public override string? Trouble => _entry?.Trouble;

    public override ImageGeometry Measure(ImageGeometry below)
    {
        if (_entry is null || _exit is null)
        {
            GuardedLower exit = _exit = new GuardedLower(below);
            BlockPipeline pipeline = new([(name, hook)], exit, warn);
            _entry = new GuardedImage($"hook {name}", pipeline, timeout, () => exit.IsStalled(timeout / 2), warn);
        }
        else
        {
            _exit.Below = below;
            _entry.Remeasure();
        }

        return _entry.Geometry;
    }

    public override ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next)
    {
        _exit!.Connect(next);
        return _entry!.HandleAsync(request);
    }

    public override void OnEvent(DiskEvent happened) => _entry?.OnEvent(happened);

    public override void Change(HookTarget arguments) => PluginCode.Run($"hook {name}", () =>
    {
        hook.Change(arguments);
        return true;
    });

    public override async ValueTask DisposeAsync()
    {
        await PluginCode.EndAsync($"hook {name}", hook, warn).ConfigureAwait(false);
        if (_exit is not null) await _exit.DisposeAsync().ConfigureAwait(false);
        await base.DisposeAsync().ConfigureAwait(false);
    }
}
