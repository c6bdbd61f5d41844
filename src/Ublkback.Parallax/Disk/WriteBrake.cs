using System.Runtime.CompilerServices;
using Ublkback.Block;

namespace Ublkback.Parallax.Disk;

/// <summary>
/// Slows down a guest that produces garbage faster than a collection frees it. Each write is delayed by a bounded time,
/// so that the collection gets through and the guest notices no stop. On the VDI's worker.
/// </summary>
[DataPath]
internal sealed class WriteBrake
{
    private const int MaxSteps = 5; // 100 ms for each write

    private static readonly TimeSpan Step = TimeSpan.FromMilliseconds(20);

    /// <summary>True while writes are delayed.</summary>
    public bool IsOn { get; set; }

    /// <summary>Delays one write, or not. The result means nothing.</summary>
    public ValueTask<bool> DelayAsync() => IsOn ? DelayOnAsync() : new ValueTask<bool>(true);

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<bool> DelayOnAsync()
    {
        for (int i = 0; i < MaxSteps && IsOn; i++) await BlockLoop.Current.DelayAsync(Step);
        return true;
    }
}
