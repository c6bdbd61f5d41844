using Ublkback.Block;

namespace Ublkback.Parallax;

/// <summary>Has what is not needed any more given back, when a VDI has written much, or the storage is full. On the VDI's worker.</summary>
internal sealed class Housekeeper(IVdiStore store, VdiImage image, Action<string> warn)
{
    /// <summary>Segments that are written before it looks again, at least: 1 GiB.</summary>
    public const long MinSegments = 256;

    private long _due = MinSegments;
    private bool _isRunning;

    /// <summary>Begins, if much was written since the last time.</summary>
    public void BeginIfDue()
    {
        if (image.Parts.Segments.Taken >= _due) _ = CollectAsync();
    }

    /// <summary>Does it now, unless it is under way; tells whether it was worth it.</summary>
    public async Task<bool> CollectAsync()
    {
        if (_isRunning) return false;
        _isRunning = true;
        Collector collector = new(store, warn);
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
        _isRunning = false;
        return collector.Freed >= VdiFormat.SegmentBlocks;
    }
}
