using System.Diagnostics;
using Ublkback.Linux.Workers;

namespace Ublkback.Parallax.Log;

/// <summary>
/// When a batch is written where a write takes long: not while another one is under way, and not before as many entries
/// have come as the last time, or a short time has gone by. Otherwise those who answer each other would be written one
/// by one. On the VDI's worker.
/// </summary>
/// <param name="log">What has a turn when the time has gone by.</param>
internal sealed class BatchGathering(IWork log)
{
    private const int LargeBlocks = 64; // 256 KiB are written beside others

    private static readonly long WaitTicks = Stopwatch.Frequency / 5000; // 200 µs

    private int _last;
    private long _end;

    /// <summary>Whether a batch is to be written now.</summary>
    public bool IsDue(LogBatch batch, int underWay)
    {
        if (batch.BlockCount < LargeBlocks)
        {
            if (underWay > 0) return false;
            if (batch.EntryCount < _last && !IsOver()) return false;
        }

        _last = batch.EntryCount;
        _end = 0;
        return true;
    }

    private bool IsOver()
    {
        if (_end != 0) return Stopwatch.GetTimestamp() >= _end;
        _end = Stopwatch.GetTimestamp() + WaitTicks;
        Worker.Current.ScheduleAfter(log, WaitTicks);
        return false;
    }
}
