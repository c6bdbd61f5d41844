using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Ublkback.Linux.Kernel;
using Ublkback.Rados.Bindings;

namespace Ublkback.Rados.Pools;

/// <summary>
/// Watches an object and answers the messages that other clients send to it, until it is disposed. Those clients get
/// no answer while this process is dead, stopped or cut off. Any thread.
/// </summary>
/// <remarks>
/// The cluster may deliver a message more than once: when a connection was lost, or when another OSD has become the
/// primary one of the object.
/// </remarks>
public sealed class RadosWatch : IDisposable
{
    private const uint TimeoutSeconds = 30; // after which the OSD gives up a client that is not connected

    private static readonly TimeSpan RetryDelay = TimeSpan.FromSeconds(1);

    private readonly RadosPool _pool;
    private readonly RadosName _name;
    private readonly Func<byte[], Task<byte[]>> _answer;
    private readonly GCHandle _self;
    private readonly Lock _gate = new();
    private readonly HashSet<Task> _answering = [];
    private ulong _watch; // 0 when there is none
    private bool _isOver;

    /// <summary>Begins to answer.</summary>
    /// <param name="pool">The pool.</param>
    /// <param name="name">The object.</param>
    /// <param name="answer">
    /// Returns the answer to a message, which is empty for what is not ours. On any thread, for several messages at a
    /// time; must not throw.
    /// </param>
    /// <exception cref="RadosException">The object cannot be watched.</exception>
    public RadosWatch(RadosPool pool, RadosName name, Func<byte[], Task<byte[]>> answer)
    {
        _pool = pool;
        _name = name;
        _answer = answer;
        _self = GCHandle.Alloc(this);
        int result = Begin();
        if (result >= 0) return;
        _self.Free();
        throw new RadosException(-result, $"object {name} cannot be watched");
    }

    /// <summary>
    /// Sends a message to all watchers of an object. Returns the answers that are not empty, and how many watchers did
    /// not answer in time. Blocks the thread.
    /// </summary>
    /// <exception cref="RadosException">The message cannot be sent.</exception>
    public static unsafe (IReadOnlyList<byte[]> Answers, int Silent) Notify(
        RadosPool pool, RadosName name, byte[] message, TimeSpan limit)
    {
        const int TimedOut = 110;
        byte* reply;
        nuint length;
        int result;
        using IDisposable? wait = pool.Enter("ask", name);
        fixed (byte* at = name.Bytes, first = message)
            result = LibRados.Notify(
                pool.Handle, at, first, message.Length, (ulong)limit.TotalMilliseconds, out reply, out length);
        try
        {
            if (result == -LinuxError.NoEntry) return ([], 0);
            if (result != -TimedOut) RadosException.Check(result, $"those who watch object {name} cannot be asked");
            (IReadOnlyList<byte[]> answers, int silent) = RadosAnswers.Read(new ReadOnlySpan<byte>(reply, (int)length));
            return (answers, result == -TimedOut && answers.Count == 0 ? Math.Max(1, silent) : silent);
        }
        finally
        {
            LibRados.FreeBuffer(reply);
        }
    }

    /// <summary>
    /// Waits until the cluster has the answers to all messages received until now; false if that takes too long.
    /// </summary>
    public async Task<bool> SettleAsync(TimeSpan limit)
    {
        Task[] answering;
        lock (_answering) answering = [.. _answering];
        try
        {
            await Task.WhenAll(answering).WaitAsync(limit).ConfigureAwait(false);
            // An OSD carries out what one client sends about one object in that order.
            await Task.Run(() => _pool.Measure(_name)).WaitAsync(limit).ConfigureAwait(false);
            return true;
        }
        catch (Exception failure) when (failure is TimeoutException or RadosException)
        {
            return false;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_gate)
        {
            _isOver = true;
            End();
        }

        // None is called any more after this.
        _ = LibRados.FlushWatches(_pool.Cluster.Handle);
        _self.Free();
    }

    private unsafe int Begin()
    {
        fixed (byte* at = _name.Bytes)
        {
            int result = LibRados.Watch(
                _pool.Handle, at, out _watch, &OnNotified, &OnFailed, TimeoutSeconds, GCHandle.ToIntPtr(_self));
            if (result < 0) _watch = 0;
            return result;
        }
    }

    // librados takes the number of a watch for an address, and must not be given one twice.
    private void End()
    {
        if (_watch != 0) _ = LibRados.Unwatch(_pool.Handle, _watch);
        _watch = 0;
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static unsafe void OnNotified(
        nint argument, ulong notification, ulong watch, ulong notifier, byte* data, nuint length)
    {
        RadosWatch self = (RadosWatch)GCHandle.FromIntPtr(argument).Target!;
        byte[] message = new ReadOnlySpan<byte>(data, (int)length).ToArray();
        self.Answer(notification, watch, message);
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static unsafe void OnFailed(nint argument, ulong watch, int error)
    {
        RadosWatch self = (RadosWatch)GCHandle.FromIntPtr(argument).Target!;
        _ = Task.Run(self.RenewAsync);
    }

    private unsafe void Acknowledge(ulong notification, ulong watch, byte[] reply)
    {
        _pool.Pass("answer", _name);
        lock (_gate)
        {
            if (_isOver) return;
            fixed (byte* at = _name.Bytes, first = reply)
                _ = LibRados.Acknowledge(_pool.Handle, at, notification, watch, first, reply.Length);
        }
    }

    private void Answer(ulong notification, ulong watch, byte[] message)
    {
        lock (_answering)
        {
            // librados wants its thread back.
            Task answering = Task.Run(() => AnswerAsync(notification, watch, message));
            _answering.Add(answering);
            _ = answering.ContinueWith(
                ended =>
                {
                    lock (_answering) _answering.Remove(ended);
                }, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        }
    }

    private async Task AnswerAsync(ulong notification, ulong watch, byte[] message) =>
        Acknowledge(notification, watch, await _answer(message).ConfigureAwait(false));

    // The connection was lost for long.
    private async Task RenewAsync()
    {
        while (true)
        {
            lock (_gate)
            {
                if (_isOver) return;
                End();
                int result = Begin();
                if (result is 0 or -LinuxError.ShutOut) return;
            }

            await Task.Delay(RetryDelay).ConfigureAwait(false);
        }
    }
}
