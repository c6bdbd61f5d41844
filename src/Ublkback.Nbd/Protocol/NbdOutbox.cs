using System.Buffers;
using System.Threading.Tasks.Sources;
using Ublkback.Linux.Workers;

namespace Ublkback.Nbd.Protocol;

/// <summary>Something to be sent.</summary>
internal interface INbdMessage
{
    /// <summary>Writes it. From now on the outbox does not know it any more.</summary>
    void Write(IBufferWriter<byte> to);

    /// <summary>The connection is lost: it is never written, and the outbox forgets it.</summary>
    void Drop();
}

/// <summary>
/// Sends messages of a connection in the order in which they came, as many at a time as there are. On one worker.
/// </summary>
[DataPath]
internal sealed class NbdOutbox(NbdChannel channel) : IWork, IValueTaskSource<bool>
{
    private const int MaxUnsent = 256 << 10; // bytes that are sent before more are written

    private readonly Queue<INbdMessage> _messages = new();
    private ManualResetValueTaskSourceCore<bool> _core;
    private bool _isWaiting;
    private bool _isEnded;

    /// <summary>Kept by the worker.</summary>
    public bool IsScheduled { get; set; }

    /// <summary>Whether the connection was lost while sending. Messages are dropped from then on.</summary>
    public bool IsLost { get; private set; }

    /// <summary>Sends a message soon, with others that come until then.</summary>
    public void Send(INbdMessage message)
    {
        if (IsLost)
        {
            message.Drop();
            return;
        }

        _messages.Enqueue(message);
        if (_isWaiting) Worker.Current.Schedule(this);
    }

    /// <summary>Sends nothing more after what is there.</summary>
    public void End()
    {
        _isEnded = true;
        if (_isWaiting) Worker.Current.Schedule(this);
    }

    /// <summary>
    /// Sends until the end, or until the connection is lost, which it then ends in the other direction too. To be
    /// called once.
    /// </summary>
    public async Task RunAsync() // off the path: once for each connection
    {
        try
        {
            await SendAllAsync();
        }
        catch (IOException)
        {
            channel.Abort(); // who receives learns why
            IsLost = true;
            while (_messages.TryDequeue(out INbdMessage? message)) message.Drop();
        }
    }

    /// <summary>Goes on, in a turn of the worker.</summary>
    public void Run()
    {
        if (!_isWaiting) return;
        _isWaiting = false;
        _core.SetResult(true);
    }

    ValueTaskSourceStatus IValueTaskSource<bool>.GetStatus(short token) => _core.GetStatus(token);

    void IValueTaskSource<bool>.OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _core.OnCompleted(continuation, state, token, ValueTaskSourceOnCompletedFlags.None);

    bool IValueTaskSource<bool>.GetResult(short token)
    {
        bool result = _core.GetResult(token);
        _core.Reset();
        return result;
    }

    private async Task SendAllAsync() // off the path: once for each connection
    {
        while (true)
        {
            while (_messages.TryDequeue(out INbdMessage? message))
            {
                message.Write(channel.Output);
                if (channel.Output.UnflushedBytes >= MaxUnsent) await channel.FlushAsync();
            }

            if (channel.Output.UnflushedBytes > 0)
            {
                await channel.FlushAsync();
                continue;
            }

            if (_isEnded) return;
            _isWaiting = true;
            await new ValueTask<bool>(this, _core.Version);
        }
    }
}
