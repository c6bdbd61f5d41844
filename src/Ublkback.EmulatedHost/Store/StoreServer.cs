using System.Collections.Immutable;
using System.Net.Sockets;

namespace Ublkback.EmulatedHost.Store;

/// <summary>
/// A store that speaks xenstored's wire protocol on unix sockets: nodes, permissions, transactions, watches. What it
/// holds is changed under one lock.
/// </summary>
public sealed class StoreServer : IAsyncDisposable
{
    private readonly Lock _lock = new();
    private readonly List<StoreSession> _sessions = [];
    private readonly Dictionary<string, (Socket Socket, Task Accepting)> _listeners = [];
    private readonly SortedSet<int> _domains = [0];
    private ImmutableDictionary<string, StoreNode> _nodes = StoreTree.Empty;

    /// <summary>Called when a toolstack introduces a domain (true) or releases one (false).</summary>
    public event Action<int, bool>? DomainChanged;

    internal Lock Lock => _lock;

    internal ImmutableDictionary<string, StoreNode> Nodes => _nodes;

    /// <summary>Accepts connections that act for a domain.</summary>
    public void Listen(string path, int domid)
    {
        if (IsAnswered(path)) throw new IOException($"another emulated host already uses {path}");
        File.Delete(path);
        Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Bind(new UnixDomainSocketEndPoint(path));
        socket.Listen();
        lock (_lock) _listeners[path] = (socket, AcceptAsync(socket, domid));
    }

    /// <summary>Stops accepting at a path and ends the connections of its domain.</summary>
    public void StopListening(string path, int domid)
    {
        lock (_lock)
        {
            if (_listeners.Remove(path, out (Socket Socket, Task Accepting) listener)) listener.Socket.Dispose();
            foreach (StoreSession session in _sessions.Where(session => session.Domid == domid).ToArray())
                session.Dispose();
        }

        File.Delete(path);
    }

    /// <summary>Ends all connections, as a crash of the store would; new ones are accepted.</summary>
    public void DropConnections()
    {
        lock (_lock)
        {
            foreach (StoreSession session in _sessions.ToArray()) session.Dispose();
        }
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        Task[] accepting;
        lock (_lock)
        {
            accepting = [.. _listeners.Values.Select(listener => listener.Accepting)];
            foreach ((Socket socket, _) in _listeners.Values) socket.Dispose();
            foreach (StoreSession session in _sessions.ToArray()) session.Dispose();
        }

        await Task.WhenAll(accepting).ConfigureAwait(false);
    }

    internal bool IsIntroduced(int domid) => _domains.Contains(domid);

    internal void Introduce(int domid)
    {
        if (_domains.Add(domid)) DomainChanged?.Invoke(domid, true);
        Fire("@introduceDomain", isRemoval: false);
    }

    internal void ReleaseDomain(int domid)
    {
        if (!_domains.Remove(domid)) throw new StoreException("ENOENT");
        DomainChanged?.Invoke(domid, false);
        Fire("@releaseDomain", isRemoval: false);
    }

    /// <summary>Makes a tree's changes everybody's; false when another came first.</summary>
    internal bool TryCommit(StoreTree tree)
    {
        if (tree.MergeInto(_nodes) is not ImmutableDictionary<string, StoreNode> merged) return false;
        _nodes = merged;
        foreach ((string path, bool isRemoval) in tree.Changes) Fire(path, isRemoval);
        return true;
    }

    internal void Remove(StoreSession session)
    {
        lock (_lock) _sessions.Remove(session);
    }

    private void Fire(string path, bool isRemoval)
    {
        foreach (StoreSession session in _sessions) session.Fire(path, isRemoval);
    }

    // A host that was killed left a socket that nothing answers.
    private static bool IsAnswered(string path)
    {
        using Socket probe = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            probe.Connect(new UnixDomainSocketEndPoint(path));
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    private async Task AcceptAsync(Socket socket, int domid)
    {
        try
        {
            while (true)
            {
                Socket client = await socket.AcceptAsync().ConfigureAwait(false);
                StoreSession session = new(this, client, domid);
                lock (_lock) _sessions.Add(session);
                session.Start();
            }
        }
        catch (Exception failure) when (failure is SocketException or ObjectDisposedException)
        {
            // The listener was closed.
        }
    }
}
