using System.IO.Pipelines;
using Ublkback.Block;

namespace Ublkback.Hooks.Trace;

/// <summary>
/// A file that is written behind the back of a worker: what is added goes into a pipe, which a task empties into the
/// file. When that cannot keep up, what does not fit is left out and counted.
/// </summary>
internal sealed class TraceFile : IAsyncDisposable
{
    /// <summary>Most bytes that wait to be written.</summary>
    public const int MaxWaitingBytes = 4 << 20;

    private static readonly TimeSpan EndPatience = TimeSpan.FromSeconds(5);

    private readonly Pipe _pipe = new(new PipeOptions(pauseWriterThreshold: 0, useSynchronizationContext: false));
    private readonly TraceFormat _format;
    private readonly Action<string> _warn;
    private readonly FileStream _file;
    private readonly Task _writing;
    private long _waitingBytes;
    private long _lost;

    /// <summary>Opens a file, to append to it.</summary>
    /// <exception cref="TargetException">It cannot be opened.</exception>
    public TraceFile(string path, TraceFormat format, Action<string> warn)
    {
        _format = format;
        _warn = warn;
        try
        {
            _file = new FileStream(path, new FileStreamOptions
            {
                Mode = FileMode.OpenOrCreate,
                Access = FileAccess.ReadWrite,
                Share = FileShare.ReadWrite,
                BufferSize = 0,
                UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
            });
        }
        catch (Exception failure) when (failure is IOException or UnauthorizedAccessException)
        {
            throw new TargetException($"the trace {path} cannot be written: {failure.Message}", failure);
        }

        _file.Seek(0, SeekOrigin.End);
        Commit(_format.WriteHead(_pipe.Writer.GetSpan(TraceFormat.MaxSize)));
        _writing = Task.Run(WriteAsync);
    }

    /// <summary>Adds a request, and its data where that is wanted. One thread at a time.</summary>
    public void Add(in TraceRecord record, ReadOnlySpan<byte> data)
    {
        if (!HasRoom()) return;
        Commit(_format.Write(record, _pipe.Writer.GetSpan(TraceFormat.MaxSize)));
        if (!_format.TakesData(record)) return;
        data.CopyTo(_pipe.Writer.GetSpan(data.Length));
        Commit(data.Length);
    }

    /// <summary>Adds what happened to the disk. One thread at a time.</summary>
    public void Add(long microseconds, DiskEvent happened)
    {
        if (!HasRoom()) return;
        Commit(_format.Write(microseconds, happened, _pipe.Writer.GetSpan(TraceFormat.MaxSize)));
    }

    /// <summary>
    /// Writes all that was added, and closes the file; not for ever, since its storage may have stalled.
    /// </summary>
    public async ValueTask DisposeAsync()
    {
        await _pipe.Writer.CompleteAsync().ConfigureAwait(false);
        try
        {
            await _writing.WaitAsync(EndPatience).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            _warn($"the trace {_file.Name} cannot be written to its end now; the disk does not wait for it");
            return;
        }

        await _file.DisposeAsync().ConfigureAwait(false);
    }

    private bool HasRoom()
    {
        if (Volatile.Read(ref _waitingBytes) > MaxWaitingBytes)
        {
            _lost++;
            return false;
        }

        if (_lost == 0) return true;
        Commit(_format.WriteLost(_lost, _pipe.Writer.GetSpan(TraceFormat.MaxSize)));
        _lost = 0;
        return true;
    }

    private void Commit(int length)
    {
        if (length == 0) return;
        Interlocked.Add(ref _waitingBytes, length);
        _pipe.Writer.Advance(length);
#pragma warning disable CA2012 // without a threshold the pipe is never full, so this has ended already
        _ = _pipe.Writer.FlushAsync();
#pragma warning restore CA2012
    }

    private async Task WriteAsync()
    {
        bool isBroken = false;
        while (true)
        {
            ReadResult result = await _pipe.Reader.ReadAsync().ConfigureAwait(false);
            foreach (ReadOnlyMemory<byte> segment in result.Buffer)
            {
                try
                {
                    if (!isBroken) await _file.WriteAsync(segment).ConfigureAwait(false);
                }
                catch (IOException failure)
                {
                    isBroken = true;
                    _warn($"the trace {_file.Name} ends here: {failure.Message}");
                }

                Interlocked.Add(ref _waitingBytes, -segment.Length);
            }

            _pipe.Reader.AdvanceTo(result.Buffer.End);
            if (result.IsCompleted) return;
        }
    }
}
