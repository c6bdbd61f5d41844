using System.Diagnostics;
using Ublkback.Block;
using Ublkback.Hooks.Trace;

namespace Ublkback.Replay;

/// <summary>Plays a capture against an image. On a worker.</summary>
internal sealed class Replayer(TraceCapture capture, ReplaySchedule schedule, IBlockImage image, ReplayOptions options)
{
    private readonly RequestPool _requests = new();
    private readonly ReplayTally _tally = new();
    private TaskCompletionSource _progress = new();
    private int _underWay;
    private Exception? _failure;

    /// <summary>Plays it all.</summary>
    /// <exception cref="IOException">The capture cannot be read any more.</exception>
    public async Task<ReplayTally> RunAsync()
    {
        long begin = Stopwatch.GetTimestamp();
        for (int i = 0; i < schedule.Entries.Count && _failure is null; i++)
        {
            while (!schedule.MayStart(i)) await ProgressAsync();
            if (options.KeepsTime)
            {
                TimeSpan wait = schedule.StartOf(i) - Stopwatch.GetElapsedTime(begin);
                if (wait > TimeSpan.Zero) await BlockLoop.Current.DelayAsync(wait);
                else _tally.OnBehind(-wait);
            }

            _underWay++;
            _ = PlayAsync(i);
        }

        while (_underWay > 0) await ProgressAsync();
        if (_failure is not null) throw new IOException(_failure.Message, _failure);
        _tally.Took = Stopwatch.GetElapsedTime(begin);
        return _tally;
    }

    private async Task PlayAsync(int index)
    {
        try
        {
            TraceCapture.Entry entry = schedule.Entries[index];
            if (options.PlaysChanges || entry.Record.Operation is BlockOperation.Read or BlockOperation.Flush)
                await PlayAsync(entry, schedule.IsComparable(index));
            else _tally.LeftOut++;
        }
        catch (Exception failure)
        {
            _failure = failure;
        }

        schedule.End(index);
        _underWay--;
        _progress.TrySetResult();
    }

    private async Task PlayAsync(TraceCapture.Entry entry, bool isComparable)
    {
        TraceRecord record = entry.Record;
        BlockRequest request = _requests.Rent(record.Operation, record.Sector, record.SectorCount);
        if (entry.HasData) await capture.ReadDataAsync(entry, request.Data);
        else if (record.Operation == BlockOperation.Write) request.Data.Span.Fill((byte)record.Checksum);

        long start = Stopwatch.GetTimestamp();
        BlockStatus status = await image.HandleAsync(request);
        _tally.OnEnded(record, status, Stopwatch.GetElapsedTime(start));
        if (record.Operation == BlockOperation.Read && status == BlockStatus.Okay)
            _tally.OnRead(record, isComparable, Crc32C.Of(request.Data.Span));
        _requests.Return(request);
    }

    private async Task ProgressAsync()
    {
        await _progress.Task;
        _progress = new TaskCompletionSource();
    }
}
