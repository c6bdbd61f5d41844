using System.Runtime.CompilerServices;
using Ublkback.Block;

namespace Ublkback.Parallax.Disk;

/// <summary>
/// Blocks that somebody reads to write them again with changes: until that is in the log, others must not write them.
/// On the VDI's worker.
/// </summary>
[DataPath]
internal sealed class BlockClaims
{
    private readonly List<(long First, long Count)> _claimed = [];
    private readonly LoopCondition _released = new();

    /// <summary>Whether somebody has one of some blocks.</summary>
    public bool Overlap(long first, long count)
    {
        foreach ((long otherFirst, long otherCount) in _claimed)
        {
            if (first < otherFirst + otherCount && otherFirst < first + count) return true;
        }

        return false;
    }

    /// <summary>Waits until somebody has given blocks back.</summary>
    public ValueTask ReleasedAsync() => _released.WaitAsync();

    /// <summary>Waits until nobody has blocks, and has them. The result means nothing.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<bool> ClaimAsync(long first, long count)
    {
        while (Overlap(first, count)) await ReleasedAsync();
        _claimed.Add((first, count));
        return true;
    }

    /// <summary>Has blocks, unless somebody else has one of them.</summary>
    public bool TryClaim(long first, long count)
    {
        if (Overlap(first, count)) return false;
        _claimed.Add((first, count));
        return true;
    }

    /// <summary>Gives them back.</summary>
    public void Release(long first, long count)
    {
        _claimed.Remove((first, count));
        _released.WakeAll();
    }
}
