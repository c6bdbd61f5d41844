using System.Diagnostics;
using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Disk;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Stores;

namespace Ublkback.Parallax.Collect;

/// <summary>
/// Starts collections of an open VDI: after many writes or discards, and when the storage is full. On the VDI's worker.
/// </summary>
internal sealed class Housekeeper(IVdiStore store, VdiImage image, Action<string> warn)
{
    // A collection begins after so much was written or discarded since the last one began; when as much was while it
    // runs, the guest is slowed down. So a VDI takes about 1.5 times what it needs, and 512 MiB.
    private const long MinSegments = 64; // 256 MiB
    private const long Share = 4; // of what it needs
    private const long ShareFarAway = 8; // there sparse segments take up to another quarter
    private const long MinSegmentsOnceFull = 4; // a collection that frees less has not made much room

    // A large store takes long to collect. Then guests are not slowed down for longer, and most of the time is theirs.
    private static readonly TimeSpan LongRun = TimeSpan.FromSeconds(10);
    private const int RestFactor = 3;

    private readonly SegmentPool _segments = image.Parts.Segments;
    private long _taken;
    private long _discarded;
    private long _needed = image.Parts.Container.IsRemote // far away it takes long to find that out
        ? 0
        : store.MeasureUsage(image.Parts.Superblock.Vdi) / VdiFormat.SegmentSize;
    private long _leastSegments = MinSegments; // fewer once the storage was full, so that guests do not wait again
    private Task _running = Task.CompletedTask;
    private Collector? _collector;
    private long _beganAt; // the last one, and when it ended: times of the stopwatch
    private long _endedAt;

    private bool IsResting => Stopwatch.GetElapsedTime(_beganAt, _endedAt) is var lasted && lasted > LongRun
        && Stopwatch.GetElapsedTime(_endedAt) < lasted * RestFactor;

    // The more there is to look at, the less often. A guest may discard much more than there is.
    private bool IsDue
    {
        get
        {
            long written = _segments.TakenForData - _taken;
            long discarded = (_segments.Discarded - _discarded) / VdiFormat.SegmentBlocks;
            long share = image.Parts.Container.IsRemote ? ShareFarAway : Share;
            return written + Math.Min(discarded, _needed) >= Math.Max(_leastSegments, _needed / share);
        }
    }

    /// <summary>
    /// Begins a collection if much was written or discarded since the last one began. If one is running, it stops
    /// pausing and the guest is slowed down: it produces garbage faster than the collection frees it.
    /// </summary>
    public void BeginIfDue()
    {
        if (!IsDue) return;
        if (_running.IsCompleted)
        {
            if (!IsResting) _running = RunAsync(isPaced: true);
            return;
        }

        _collector?.IsPaced = false;
        image.Parts.Brake.IsOn =
            _collector?.IsCollecting == true && Stopwatch.GetElapsedTime(_beganAt) < LongRun;
    }

    /// <summary>
    /// Collects now, because a guest waits for space. A running collection ends first, without pauses: it leaves what
    /// became garbage since it began.
    /// </summary>
    public async Task CollectAsync()
    {
        _leastSegments = MinSegmentsOnceFull;
        while (!_running.IsCompleted)
        {
            _collector?.IsPaced = false;
            await _running;
        }

        await (_running = RunAsync(isPaced: false));
    }

    private async Task RunAsync(bool isPaced)
    {
        Collector collector = _collector = new(store, warn) { IsPaced = isPaced, EmptiesAll = !isPaced };
        (long Taken, long Discarded) before = (_taken, _discarded);
        (_taken, _discarded) = (_segments.TakenForData, _segments.Discarded);
        _beganAt = Stopwatch.GetTimestamp();
        try
        {
            await image.HoldAsync(async () =>
            {
                await collector.RunAsync([image], withUnnamed: !isPaced);
                // A guest waits, and that was little: what was deleted elsewhere in the store makes room too.
                if (!isPaced && collector.Freed < MinSegmentsOnceFull * VdiFormat.SegmentBlocks)
                    await new Collector(store, warn) { IsPaced = false }.RunAsync(
                        [image], withUnnamed: false, await Task.Run(FindAll));
                return _needed = collector.CountNeeded(image.Parts.Superblock.Vdi) / VdiFormat.SegmentBlocks;
            });
        }
        catch (ImageInUseException)
        {
            (_taken, _discarded) = before; // another VDI's turn
        }
        catch (Exception failure) when (failure is TargetException or IOException or InvalidDataException)
        {
            warn(failure.Message);
        }
        catch (OperationCanceledException)
        {
            // The image is closed.
        }
        finally
        {
            image.Parts.Brake.IsOn = false;
            _endedAt = Stopwatch.GetTimestamp();
        }
    }

    private List<uint> FindAll()
    {
        List<uint> all = [];
        foreach (string name in store.Names)
        {
            try
            {
                all.Add(store.Find(name));
            }
            catch (NoSuchVdiException)
            {
                // It was deleted meanwhile.
            }
        }

        return all;
    }
}
