using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;

namespace Ublkback.Linux.Files;

/// <summary>
/// Frees ranges of one file or block device on one worker, one after the other: each takes one of the kernel's few
/// threads for operations that block, or one of ours, and may take long.
/// </summary>
public sealed class DiscardQueue(FileDescriptor file, bool isDevice) : RingOperation
{
    private readonly Worker _worker = Worker.Current;
    private readonly Queue<(IoOperation Turn, long Offset, long Length)> _waiting = new();
    private IoOperation? _running;

    /// <summary>Frees a range in bytes; the result is 0 or −errno.</summary>
    public ValueTask<int> DiscardAsync(long offset, long length)
    {
        IoOperation turn = _worker.Operations.Rent();
        _waiting.Enqueue((turn, offset, length));
        if (_running is null) StartNext();
        return turn.Task;
    }

    /// <inheritdoc/>
    protected internal override void Completed(int result)
    {
        IoOperation ended = _running!;
        _running = null;
        ended.Completed(result);
        if (_running is null) StartNext();
    }

    private void StartNext()
    {
        if (!_waiting.TryDequeue(out (IoOperation Turn, long Offset, long Length) next)) return;
        _running = next.Turn;
        if (!isDevice)
        {
            _worker.Operations.StartPunchHole(this, file, next.Offset, next.Length);
            return;
        }

        // io_uring has had no discard of devices until Linux 6.12.
        _ = Task.Run(() =>
        {
            int result = BlockDevice.Discard(file, next.Offset, next.Length);
            _worker.Post(() => Completed(result));
        });
    }
}
