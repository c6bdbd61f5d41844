using Ublkback.Block;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Disk;

/// <summary>
/// Writes a disk's data again, where it is scattered, so that what is together on the disk is together in the file.
/// Guests go on meanwhile. On the VDI's worker.
/// </summary>
internal sealed class Compactor(VdiParts parts, CancellationToken cancellation)
{
    private const int FewRuns = 2; // a stretch may lie on both sides of the header of a batch
    private const int MaxStretch = 256; // blocks that are written again at once: 1 MiB

    private long Blocks => VdiFormat.BlocksFor(parts.Content.Size);

    /// <summary>Does it for the whole disk; gives how many blocks were written.</summary>
    public async Task<(BlockStatus Status, long Written)> RunAsync()
    {
        long written = 0;
        for (long block = 0; block < Blocks;)
        {
            cancellation.ThrowIfCancellationRequested();
            int epoch = await parts.Epochs.BeginAsync();
            (BlockStatus status, int length, int runs) =
                await FindStretchAsync(block, (int)Math.Min(MaxStretch, Blocks - block));
            if (status == BlockStatus.Okay && runs > FewRuns)
            {
                status = await parts.Writer.RewriteAsync(block, length);
                written += length;
            }

            parts.Epochs.End(epoch);
            if (status != BlockStatus.Okay) return (status, written);
            block += length;
        }

        return (BlockStatus.Okay, written);
    }

    // Blocks up to the next hole, or a hole; and in how many places they are.
    private async Task<(BlockStatus Status, int Length, int Runs)> FindStretchAsync(long block, int maxLength)
    {
        int length = 0;
        for (int runs = 0; ; runs++)
        {
            (BlockStatus status, MapEntry first, int count) =
                await parts.Reader.FindRunAsync(block + length, maxLength - length);
            if (status != BlockStatus.Okay || (first.Address.IsNone && runs == 0)) return (status, count, 0);
            if (first.Address.IsNone) return (status, length, runs);
            length += count;
            if (length == maxLength) return (status, length, runs + 1);
        }
    }
}
