using System.Collections.Concurrent;
using System.IO.Pipelines;

namespace Ublkback.XenStore;

/// <summary>
/// One connection to the store, over a socket or a device: matches replies to requests and hands watch events on.
/// Requests may come from any thread; when the connection ends, all that wait fail, once.
/// </summary>
internal sealed class XenStoreConnection : IDisposable
{
    private readonly Stream _stream;
    private readonly PipeReader _reader;
    private readonly PipeWriter _writer;
    private readonly Action<string, string> _onWatchEvent;
    private readonly SemaphoreSlim _writing = new(1);
    private readonly ConcurrentDictionary<uint, TaskCompletionSource<XenStoreMessage>> _waiting = new();
    private uint _lastRequest;
    private volatile bool _isLost;

    public XenStoreConnection(Stream stream, Action<string, string> onWatchEvent)
    {
        _stream = stream;
        _reader = PipeReader.Create(stream);
        _writer = PipeWriter.Create(stream);
        _onWatchEvent = onWatchEvent;
        Lost = Task.Run(ReceiveAsync);
    }

    /// <summary>Ends, with the cause, when the connection does.</summary>
    public Task<Exception> Lost { get; }

    public async Task<byte[]> RequestAsync(
        XenStoreMessageType type, uint transaction, byte[] payload, string subject)
    {
        uint id = Interlocked.Increment(ref _lastRequest);
        TaskCompletionSource<XenStoreMessage> reply = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _waiting[id] = reply;
        try
        {
            await SendAsync(type, id, transaction, payload).ConfigureAwait(false);
            // Checked after the entry is there: either this sees the loss or the loss sees the entry.
            if (_isLost) throw new XenStoreException(XenStoreError.Disconnected, $"{type} {subject}");
            XenStoreMessage message = await reply.Task.ConfigureAwait(false);
            if (message.Header.Type != XenStoreMessageType.Error) return message.Payload;
            string error = XenStoreCodec.SplitStrings(message.Payload) is [string name, ..] ? name : "";
            throw new XenStoreException(XenStoreException.FromWire(error), $"{type} {subject}");
        }
        finally
        {
            _waiting.TryRemove(id, out _);
        }
    }

    public void Dispose() => _stream.Dispose();

    private async Task SendAsync(XenStoreMessageType type, uint id, uint transaction, byte[] payload)
    {
        await _writing.WaitAsync().ConfigureAwait(false);
        try
        {
            XenStoreCodec.Write(_writer, type, id, transaction, payload);
            await _writer.FlushAsync().ConfigureAwait(false);
        }
        catch (Exception failure) when (failure is IOException and not XenStoreException or ObjectDisposedException)
        {
            throw new XenStoreException(XenStoreError.Disconnected, type.ToString(), failure);
        }
        finally
        {
            _writing.Release();
        }
    }

    private async Task<Exception> ReceiveAsync()
    {
        Exception cause;
        try
        {
            while (true)
            {
                ReadResult result = await _reader.ReadAsync().ConfigureAwait(false);
                System.Buffers.ReadOnlySequence<byte> buffer = result.Buffer;
                while (XenStoreCodec.TryRead(ref buffer, out XenStoreMessage message)) Dispatch(message);
                if (result.IsCompleted) throw new EndOfStreamException("the store closed the connection");
                _reader.AdvanceTo(buffer.Start, buffer.End);
            }
        }
        catch (Exception failure) when (failure is IOException or InvalidDataException or ObjectDisposedException)
        {
            cause = failure;
        }

        _isLost = true;
        foreach (TaskCompletionSource<XenStoreMessage> reply in _waiting.Values)
            reply.TrySetException(new XenStoreException(XenStoreError.Disconnected, "request", cause));
        return cause;
    }

    private void Dispatch(XenStoreMessage message)
    {
        if (message.Header.Type == XenStoreMessageType.WatchEvent)
        {
            if (XenStoreCodec.SplitStrings(message.Payload) is [string path, string token, ..])
                _onWatchEvent(path, token);
        }
        else if (_waiting.TryGetValue(message.Header.RequestId, out TaskCompletionSource<XenStoreMessage>? reply))
        {
            reply.TrySetResult(message);
        }
    }
}
