using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Linux.Workers;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Nbd.Client;

/// <summary>
/// Keeps one connection to a server up, for one worker. Requests that were not answered when it was lost are asked
/// again on the next one; they wait for that, but not for ever. While it has none, others' are used.
/// </summary>
/// <param name="connector">Connects.</param>
/// <param name="first">A connection that is there already; null when there is none.</param>
/// <param name="export">What the disk is like; a server that shows another one later is not used.</param>
/// <param name="maxOutage">How long requests wait for a connection.</param>
/// <param name="peers">The links of all workers.</param>
/// <param name="warn">Takes sentences about errors.</param>
internal sealed class NbdLink(
    NbdConnector connector, NbdConnection? first, NbdExport export, TimeSpan maxOutage, NbdPeers peers,
    Action<string> warn)
{
    private static readonly TimeSpan FirstPause = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan LongestPause = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan LongestSparePause = TimeSpan.FromSeconds(30); // while others' are used

    private readonly LoopCondition _waiting = new();
    private NbdConnection? _connection;
    private Task? _running;
    private long _lostAt; // a time of the stopwatch; 0 while connected
    private long _connectedSince;
    private string? _trouble;
    private bool _isWakingLate;
    private bool _isWatching;
    private bool _isClosed;

    /// <summary>What keeps requests waiting; null when nothing does. Any thread.</summary>
    public string? Trouble => peers.TryFind(this, 0, out _) ? null : _trouble;

    /// <summary>
    /// When connecting to what is connected now began; a time of the stopwatch, 0 when nothing is. Any thread.
    /// </summary>
    public long ConnectedSince => Volatile.Read(ref _connectedSince);

    private NbdConnection? Usable => _connection is { IsEnding: false } connection ? connection : null;

    /// <summary>Begins to keep it up. On the worker, once.</summary>
    public void Start()
    {
        _lostAt = Stopwatch.GetTimestamp();
        _running = RunAsync();
    }

    /// <summary>Has waiting requests look again. On the worker.</summary>
    public void Wake() => _waiting.WakeAll();

    /// <summary>Disconnects from a server that ends, unless connecting began after a time. On the worker.</summary>
    public void Leave(long at)
    {
        if (_connection is NbdConnection connection && connection.BegunAt < at) _ = LeaveAsync(connection);
    }

    /// <summary>Asks the server, on this connection, that of another worker, or a later one.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> CallAsync(
        NbdCommand command, ushort flags, long offset, int length, Memory<byte> data)
    {
        long waitsSince = 0, lostAt = 0;
        while (true)
        {
            NbdConnection? connection = Usable;
            if (connection is not null)
            {
                Watch();
                if (await connection.CallAsync(command, flags, offset, length, data) is BlockStatus status)
                    return status;
                lostAt = Stopwatch.GetTimestamp();
            }
            else if (peers.TryFind(this, lostAt, out (Worker Worker, NbdLink Link) other))
            {
                if (await AskOtherAsync(other, command, flags, offset, length, data) is BlockStatus status)
                    return status;
                lostAt = Stopwatch.GetTimestamp();
            }

            // However often it comes and goes, a request waits that long only.
            if (waitsSince == 0)
                waitsSince = _lostAt == 0 ? Stopwatch.GetTimestamp() : Math.Max(_lostAt, peers.LostAt);
            if (_isClosed || Stopwatch.GetElapsedTime(waitsSince) > maxOutage) return BlockStatus.IoError;
            if (Usable != connection || (connection is null && peers.TryFind(this, lostAt, out _))) continue;
            WakeLate();
            await _waiting.WaitAsync();
        }
    }

    // A method of its own: what the lambda captures is allocated where its method begins.
    private static Task<BlockStatus?> AskOtherAsync(
        (Worker Worker, NbdLink Link) other, NbdCommand command, ushort flags, long offset, int length,
        Memory<byte> data) =>
        other.Worker.InvokeAsync(async () =>
        {
            if (other.Link._connection is not NbdConnection connection) return null;
            other.Link.Watch();
            return await connection.CallAsync(command, flags, offset, length, data);
        });

    /// <summary>Ends the connection. No request is under way. On the worker.</summary>
    public async Task CloseAsync()
    {
        _isClosed = true;
        _waiting.WakeAll();
        if (_connection is not NbdConnection connection) return; // whatever comes of connecting is closed then
        connection.EndWhenIdle();
        if (await Task.WhenAny(_running!, BlockLoop.Current.DelayAsync(LongestPause).AsTask()) != _running)
            connection.Abort();
        await _running!;
    }

    private async Task LeaveAsync(NbdConnection connection)
    {
        connection.EndWhenIdle();
        await BlockLoop.Current.DelayAsync(connector.Patience);
        if (_connection == connection) connection.Abort();
    }

    private async Task RunAsync()
    {
        NbdConnection? next = first;
        TimeSpan pause = FirstPause;
        bool isTold = false;
        while (!_isClosed)
        {
            try
            {
                next ??= await connector.ConnectAsync();
                CheckIsSame(next);
                if (isTold)
                    warn(string.Create(
                        CultureInfo.InvariantCulture,
                        $"{connector.Name}: connected again, after "
                        + $"{Stopwatch.GetElapsedTime(_lostAt).TotalSeconds:F1} s"));
                string cause = await UseAsync(next);
                if (_isClosed) return;
                _trouble = $"the connection to the server was lost: {cause}";
                warn($"{connector.Name}: the connection was lost: {cause}; requests wait up to "
                    + $"{maxOutage.TotalSeconds} s for the next");
                isTold = true;
                pause = FirstPause;
            }
            catch (IOException failure)
            {
                bool isSpare = peers.TryFind(this, 0, out _);
                if (!isTold)
                    warn($"{connector.Name}: cannot connect: {failure.Message}"
                        + (isSpare ? "; requests go over the connections that there are" : ""));
                isTold = true;
                _trouble = $"cannot connect to the server: {failure.Message}";
                next = null;
                await BlockLoop.Current.DelayAsync(pause);
                TimeSpan longest = isSpare ? LongestSparePause : LongestPause;
                pause = pause * 2 < longest ? pause * 2 : longest;
                continue;
            }

            next = null;
        }

        if (next is not null)
        {
            next.Abort();
            await next.RunAsync();
        }
    }

    private async Task<string> UseAsync(NbdConnection connection)
    {
        _trouble = null;
        _lostAt = 0;
        _connection = connection;
        Volatile.Write(ref _connectedSince, connection.BegunAt);
        _waiting.WakeAll();
        if (connection.BegunAt < peers.EndedAt) _ = LeaveAsync(connection); // of the server that ends
        else peers.NoteConnection(this);
        string cause = await connection.RunAsync();
        _connection = null;
        Volatile.Write(ref _connectedSince, 0);
        _lostAt = Stopwatch.GetTimestamp();
        peers.NoteLoss(_lostAt);
        if (connection.IsServerEnding) peers.NoteEnd(this, connection.BegunAt, _lostAt);
        connection.GiveUp();
        _waiting.WakeAll(); // others' connections may be there
        return cause;
    }

    // While requests wait, has them look now and then whether they have waited for as long as they may.
    private void WakeLate()
    {
        if (_isWakingLate) return;
        _isWakingLate = true;
        _ = WakeLateAsync();
    }

    private async Task WakeLateAsync()
    {
        await BlockLoop.Current.DelayAsync(maxOutage / 4);
        _isWakingLate = false;
        _waiting.WakeAll();
    }

    private void CheckIsSame(NbdConnection next)
    {
        NbdExport now = next.Export;
        string? difference = now.Size != export.Size ? $"the disk had {export.Size} bytes and has {now.Size} now"
            : (now.Flags & export.Flags) != export.Flags
                || now.Can(NbdExportFlags.ReadOnly) != export.Can(NbdExportFlags.ReadOnly)
                    ? "the disk can do less than it could"
            : now.MinBlock > export.MinBlock || now.MaxBlock < export.MaxBlock
                ? "the server takes other sizes of requests than it did"
            : null;
        if (difference is null) return;
        next.Abort();
        _ = next.RunAsync();
        throw new IOException(difference);
    }

    // While requests are under way, looks whether the server still answers.
    private void Watch()
    {
        if (_isWatching) return;
        _isWatching = true;
        _ = WatchAsync();
    }

    private async Task WatchAsync()
    {
        while (true)
        {
            await BlockLoop.Current.DelayAsync(connector.Patience / 4);
            if (_connection is not { UnderWay: > 0 } connection) break;
            if (Stopwatch.GetElapsedTime(connection.LastAnswer) < connector.Patience) continue;
            warn(string.Create(
                CultureInfo.InvariantCulture,
                $"{connector.Name}: the server has not answered for {connector.Patience.TotalSeconds} s"));
            connection.Abort();
        }

        _isWatching = false;
    }
}
