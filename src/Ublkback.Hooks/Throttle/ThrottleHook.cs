using System.Runtime.CompilerServices;
using Ublkback.Block;

namespace Ublkback.Hooks.Throttle;

/// <summary>
/// <c>throttle(iops=N,bandwidth=SIZE,burst=TIME,group=NAME)</c>: bounds requests and bytes a second, of the disk or of
/// all disks of a group together. Flushes and discards count as requests.
/// </summary>
internal sealed class ThrottleHook : BlockHook
{
    private readonly ThrottleGroup _group;

    /// <summary>Makes the hook of one disk.</summary>
    /// <exception cref="TargetException">The arguments are not right.</exception>
    public ThrottleHook(HookTarget target, ImageOpening opening)
    {
        target.AllowOnly("iops", "bandwidth", "burst", "group");
        _group = ThrottleGroup.Find(target.Get("group"));
        _group.Set(target);
    }

    /// <inheritdoc/>
    public override bool AllowsManyWorkers => true;

    /// <inheritdoc/>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public override async ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next)
    {
        TimeSpan wait = _group.Take(request);
        if (wait > TimeSpan.Zero) await BlockLoop.Current.DelayAsync(wait);
        return await next.HandleAsync(request);
    }

    /// <inheritdoc/>
    public override void Change(HookTarget arguments)
    {
        arguments.AllowOnly("iops", "bandwidth", "burst");
        _group.Set(arguments);
    }
}
