using Ublkback.Block;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Stores;

namespace Ublkback.Parallax.Collect;

/// <summary>
/// Has what is not needed any more given back, when a VDI has written much, or the storage is full. On the VDI's
/// worker.
/// </summary>
internal sealed class Housekeeper(IVdiStore store, VdiImage image, Action<string> warn)
{
    /// <summary>Segments that are written before it looks again, at least: 1 GiB.</summary>
    public const long MinSegments = 256;

    private long _due = MinSegments;
    private Task<bool> _running = Task.FromResult(false);

    /// <summary>Begins, if much was written since the last time.</summary>
    public void BeginIfDue()
    {
        if (image.Parts.Segments.Taken >= _due) _ = CollectAsync(isAwaited: false);
    }

    /// <summary>
    /// Does it now, or waits until it has been done, when it is under way; tells whether it was worth it.
    /// </summary>
    /// <param name="isAwaited">Whether the guest waits for it; otherwise it takes its time, so as not to be in the
    /// guest's way.</param>
    public Task<bool> CollectAsync(bool isAwaited)
    {
        if (_running.IsCompleted) _running = RunAsync(isPaced: !isAwaited);
        return _running;
    }

    private async Task<bool> RunAsync(bool isPaced)
    {
        Collector collector = new(store, warn) { IsPaced = isPaced };
        try
        {
            await image.HoldAsync(async () =>
            {
                await collector.RunAsync([image], withUnnamed: false);
                return true;
            });
        }
        catch (ImageInUseException)
        {
            // Another VDI's turn: later.
        }
        catch (Exception failure) when (failure is TargetException or IOException or InvalidDataException)
        {
            warn(failure.Message);
        }
        catch (OperationCanceledException)
        {
            return false; // the image is closed
        }

        // The more there is to look at, the less often.
        long needed = collector.CountNeeded(image.Parts.Superblock.Vdi) / VdiFormat.SegmentBlocks;
        _due = image.Parts.Segments.Taken + Math.Max(MinSegments, needed / 2);
        return collector.Freed >= VdiFormat.SegmentBlocks;
    }
}
