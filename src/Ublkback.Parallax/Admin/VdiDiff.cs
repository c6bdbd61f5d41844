using Ublkback.Block;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Admin;

/// <summary>
/// Finds where two disks may differ: where their blocks are not the same blocks of a file. On one worker.
/// </summary>
internal static class VdiDiff
{
    /// <summary>Compares two disks; what only the longer one has differs.</summary>
    /// <exception cref="TargetException">A map cannot be read.</exception>
    public static async Task<IReadOnlyList<VdiRange>> RunAsync(VdiParts one, VdiParts other)
    {
        const int MaxRun = 1 << 16;
        List<VdiRange> ranges = [];
        long common = Math.Min(VdiFormat.BlocksFor(one.Content.Size), VdiFormat.BlocksFor(other.Content.Size));
        for (long block = 0; block < common;)
        {
            int wanted = (int)Math.Min(MaxRun, common - block);
            (BlockStatus status, MapEntry first, int count) = await one.Reader.FindRunAsync(block, wanted);
            (BlockStatus otherStatus, MapEntry second, int otherCount) = await other.Reader.FindRunAsync(block, wanted);
            if (status != BlockStatus.Okay || otherStatus != BlockStatus.Okay)
                throw new TargetException(
                    $"the map cannot be read at byte {VdiFormat.OffsetOf(block)}", "see 'ublkback vdi fsck'");
            int length = Math.Min(count, otherCount);
            if (first.Address != second.Address || first.Address.IsLost)
                Add(ranges, VdiFormat.OffsetOf(block), VdiFormat.OffsetOf(length));
            block += length;
        }

        long longest = Math.Max(one.Content.Size, other.Content.Size);
        if (longest > VdiFormat.OffsetOf(common))
            Add(ranges, VdiFormat.OffsetOf(common), longest - VdiFormat.OffsetOf(common));
        return ranges;
    }

    private static void Add(List<VdiRange> ranges, long offset, long length)
    {
        if (ranges is [.., VdiRange last] && last.Offset + last.Length == offset)
            ranges[^1] = last with { Length = last.Length + length };
        else ranges.Add(new VdiRange(offset, length));
    }
}
