namespace Ublkback.Parallax.Requests;

/// <summary>
/// The last requests to the process that holds a VDI in a pool, each with the reply that it got. Any thread.
/// </summary>
/// <remarks>
/// The cluster may deliver a request twice, and a reply may be lost. So each request begins with an id. A request whose
/// id is known is not carried out again, and the ids are left behind when the VDI is closed.
/// </remarks>
internal sealed class AnsweredRequests
{
    private const int IdLength = 16; // bytes
    private const int Remembered = 64; // requests
    private const int MaxReply = 4096; // bytes; a longer reply is a list, and making it again does no harm

    private readonly Lock _gate = new();
    private readonly Dictionary<Guid, Task<byte[]>> _replies = [];
    private readonly Queue<Guid> _order = new(); // in which the requests came

    /// <summary>Returns a request as it is sent.</summary>
    public static byte[] Seal(Guid id, ReadOnlySpan<byte> request) => [.. id.ToByteArray(), .. request];

    /// <summary>Returns the id and the request of a message; null if the message is shorter than an id.</summary>
    public static (Guid Id, byte[] Request)? Open(byte[] message) => message.Length < IdLength
        ? null
        : (new Guid(message.AsSpan(0, IdLength)), message[IdLength..]);

    /// <summary>
    /// True if it is known that a request is none of those of which <see cref="GetIds"/> gave the last ones.
    /// </summary>
    public static bool IsMissing(ReadOnlySpan<byte> ids, Guid request)
    {
        if (ids.Length >= Remembered * IdLength) return false; // it may have been one before these
        for (; ids.Length >= IdLength; ids = ids[IdLength..])
        {
            if (new Guid(ids[..IdLength]) == request) return false;
        }

        return true;
    }

    /// <summary>Returns the reply to a known request, which may still be carried out; null otherwise.</summary>
    public Task<byte[]>? Find(Guid id)
    {
        lock (_gate) return _replies.GetValueOrDefault(id);
    }

    /// <summary>Carries out a request and returns the reply. A known request gets its first reply again.</summary>
    public async Task<byte[]> AnswerAsync(Guid id, Func<Task<byte[]>> carryOut)
    {
        Task<byte[]>? answer;
        lock (_gate)
        {
            if (!_replies.TryGetValue(id, out answer))
            {
                _replies[id] = answer = Task.Run(carryOut);
                _order.Enqueue(id);
                while (_order.Count > Remembered
                    && (!_replies.TryGetValue(_order.Peek(), out Task<byte[]>? oldest) || oldest.IsCompleted))
                    _replies.Remove(_order.Dequeue());
            }
        }

        byte[] reply = await answer.ConfigureAwait(false);
        if (reply.Length > MaxReply)
        {
            lock (_gate) _replies.Remove(id);
        }

        return reply;
    }

    /// <summary>Returns the ids of the last 64 requests, one after the other.</summary>
    public byte[] GetIds()
    {
        lock (_gate) return [.. _order.TakeLast(Remembered).SelectMany(id => id.ToByteArray())];
    }
}
