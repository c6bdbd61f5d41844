using Ublkback.Block;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;

namespace Ublkback.Parallax.Log;

/// <summary>
/// Writes marks, which say how far the log is durable, beside the log. On the VDI's worker.
/// </summary>
/// <remarks>
/// The header of each batch says it too, so a mark is needed only when no batch follows for a while, and for each
/// segment. It costs flushes nothing: it is written after them, and nothing waits for it. A mark that a loss of power
/// takes away promises less than there is, and never more.
/// </remarks>
/// <param name="container">The VDI.</param>
/// <param name="known">The marks that were found there.</param>
/// <param name="log">The log.</param>
/// <param name="warn">Takes sentences for the log of the process.</param>
internal sealed class LogMark(IVdiContainer container, EssentialBlocks known, VdiLog log, Action<string> warn)
{
    private static readonly TimeSpan Quiet = TimeSpan.FromMilliseconds(10);

    private VdiMark _last = known.Mark with { Sequence = known.Promised };
    private Task _running = Task.CompletedTask;
    private long _segment;
    private bool _hasFailed;
    private volatile bool _isEnded;

    /// <summary>More of the log is durable.</summary>
    public void Follow()
    {
        if (_running.IsCompleted && !_isEnded && log.Durable > _last.Sequence) _running = RunAsync();
    }

    /// <summary>Waits until the mark says all that is durable.</summary>
    public async Task SettleAsync()
    {
        await _running;
        if (log.Durable > _last.Sequence) await WriteAsync();
    }

    /// <summary>Writes no more. Any thread.</summary>
    public void End() => _isEnded = true;

    private async Task RunAsync()
    {
        bool isWritten = true;
        while (isWritten && log.Durable > _last.Sequence)
        {
            (ulong, ulong) before = (log.Durable, log.Next);
            await BlockLoop.Current.DelayAsync(Quiet);
            if (_isEnded) return;
            if (before == (log.Durable, log.Next) || _segment != VdiFormat.SegmentOf(log.Applied.Block))
                isWritten = await WriteAsync();
        }
    }

    private async Task<bool> WriteAsync()
    {
        VdiMark mark = _last with { Count = _last.Count + 1, Sequence = log.Durable };
        long segment = VdiFormat.SegmentOf(log.Applied.Block);
        try
        {
            await Task.Run(() => container.WriteCopy(mark.Block, mark.ToBlock(), isFlushed: false));
            (_last, _segment, _hasFailed) = (mark, segment, false);
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            if (!_hasFailed) warn($"{container.Path}: a mark of the log cannot be written: {failure.Message}");
            _hasFailed = true;
        }

        return !_hasFailed;
    }
}
