using System.Net.Sockets;
using Ublkback.Block;
using Ublkback.Linux.Sockets;
using Ublkback.Linux.Workers;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Nbd.Server;

/// <summary>
/// Offers an image to NBD clients. All of them see the same disk; a flush of one covers what any was answered. Before a
/// client is served, the requests of those that are gone have ended, so none of theirs lands on one of its own.
/// </summary>
public sealed class NbdServer : IAsyncDisposable
{
    private const int MaxBlock = 1 << 20; // bytes of a request, as clients are told; larger ones are served too

    private static readonly TimeSpan OrphanPatience = TimeSpan.FromSeconds(2);

    private readonly Socket _listener;
    private readonly IReadOnlyList<Worker> _workers;
    private readonly Action<string> _log;
    private readonly Lock _gate = new();
    private readonly List<NbdSession> _sessions = [];
    private IDisposable? _watch;
    private bool _isEnding;
    private int _last;

    /// <summary>Begins to serve.</summary>
    /// <param name="options">Where, and how.</param>
    /// <param name="image">The disk; not owned.</param>
    /// <param name="workers">Serve it.</param>
    /// <param name="log">Takes sentences about clients. Any thread.</param>
    /// <exception cref="SocketException">The place cannot be listened at.</exception>
    public NbdServer(NbdServerOptions options, IBlockImage image, IReadOnlyList<Worker> workers, Action<string> log)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(image);
        Options = options;
        Image = image;
        _workers = workers;
        _log = log;
        Export = Describe(image.Geometry, options.MaxClients > 1);
        bool isUnix = options.Place.AddressFamily == AddressFamily.Unix;
        _listener = new Socket(
            options.Place.AddressFamily, SocketType.Stream, isUnix ? ProtocolType.Unspecified : ProtocolType.Tcp);
        try
        {
            _listener.Bind(options.Place);
            if (options.Place is UnixDomainSocketEndPoint unix)
                File.SetUnixFileMode(unix.ToString(), UnixFileMode.UserRead | UnixFileMode.UserWrite);
            _listener.Listen();
        }
        catch
        {
            _listener.Dispose();
            throw;
        }

        image.UseOn(workers[0]);
        workers[0].Post(() => _watch = workers[0].Watch((int)_listener.SafeHandle.DangerousGetHandle(), Accept));
    }

    /// <summary>Where it listens: with the port that was chosen, when none was given.</summary>
    public System.Net.EndPoint Place => _listener.LocalEndPoint!;

    internal NbdServerOptions Options { get; }

    internal IBlockImage Image { get; }

    internal NbdExport Export { get; }

    /// <summary>Memory for clients' data.</summary>
    internal PerWorker<RequestPool> Buffers { get; } = new(() => new RequestPool());

    /// <summary>Ends: clients are cut off when what they have asked is done. The image stays open.</summary>
    public async ValueTask DisposeAsync()
    {
        // First: another server may listen at the same place while a storage that has stalled keeps this one.
        if (Options.Place is UnixDomainSocketEndPoint unix) File.Delete(unix.ToString());
        await _workers[0].RunAsync(() => _watch?.Dispose()).ConfigureAwait(false);
        _listener.Dispose();
        NbdSession[] left;
        lock (_gate)
        {
            _isEnding = true;
            left = [.. _sessions];
        }

        foreach (NbdSession session in left) session.Abort();
        await Task.WhenAll(left.Select(session => session.Ended)).ConfigureAwait(false);
    }

    /// <summary>Waits until nothing is left of clients that are gone. On a worker.</summary>
    internal async Task AwaitOrphansAsync()
    {
        NbdSession[] orphans;
        lock (_gate) orphans = [.. _sessions.Where(session => session.IsOrphaned)];
        if (orphans.Length == 0) return;
        Task ended = Task.WhenAll(orphans.Select(session => session.Ended));
        // A client that has closed one direction may still take answers, or may have stopped to.
        if (await Task.WhenAny(ended, BlockLoop.Current.DelayAsync(OrphanPatience).AsTask()) != ended)
        {
            foreach (NbdSession session in orphans) session.Abort();
        }

        await ended;
    }

    /// <summary>A session has done its last request.</summary>
    internal void Forget(NbdSession session, string? fault)
    {
        lock (_gate)
        {
            _sessions.Remove(session);
            if (fault is not null && !_isEnding) _log($"a client is gone: {fault}");
        }
    }

    private static NbdExport Describe(ImageGeometry geometry, bool allowsMany)
    {
        NbdExportFlags flags = NbdExportFlags.HasFlags | NbdExportFlags.Flush | NbdExportFlags.DontFragment;
        if (allowsMany) flags |= NbdExportFlags.MultiConnection;
        flags |= geometry.IsReadOnly
            ? NbdExportFlags.ReadOnly
            : NbdExportFlags.WriteZeroes | NbdExportFlags.ForceUnitAccess;
        if (!geometry.IsReadOnly && geometry.DiscardGranularity > 0) flags |= NbdExportFlags.Trim;
        return new NbdExport(
            (long)geometry.SectorCount * BlockRequest.SectorSize, flags, geometry.SectorSize, MaxBlock,
            IsStructured: true);
    }

    private void Accept()
    {
        try
        {
            while (_listener.Poll(0, SelectMode.SelectRead)) Begin(_listener.Accept());
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            // The client is gone again, or the server ends.
        }
    }

    private void Begin(Socket client)
    {
        Worker worker = Image.AllowsManyWorkers ? _workers[_last++ % _workers.Count] : _workers[0];
        NbdSession session = new(this, new SocketStream(client));
        lock (_gate)
        {
            // Those that are gone take no place, but there cannot be any number of them.
            bool isFull = _sessions.Count >= Options.MaxClients
                && (_sessions.Count >= 2 * Options.MaxClients + 1
                    || _sessions.Count(other => !other.IsGone) >= Options.MaxClients);
            if (_isEnding || isFull)
            {
                if (!_isEnding) _log($"a client was turned away: {Options.MaxClients} are served already");
                client.Dispose();
                return;
            }

            _sessions.Add(session);
        }

        worker.Post(() => _ = session.RunAsync());
    }
}
