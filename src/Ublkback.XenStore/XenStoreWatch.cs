using System.Threading.Channels;

namespace Ublkback.XenStore;

/// <summary>
/// A watch on a path. Events are coalesced: at most <see cref="MaxPaths"/> distinct changed paths are kept until they
/// are taken, and beyond that only the fact that anything may have changed. So no guest can make a queue grow.
/// </summary>
/// <remarks>
/// The store sends one event at once when a watch begins, so whoever waits first reads the world. The same happens
/// after a lost connection.
/// </remarks>
public sealed class XenStoreWatch
{
    /// <summary>Most distinct paths kept between two calls of <see cref="WaitAsync"/>.</summary>
    public const int MaxPaths = 1024;

    private readonly Channel<bool> _signal =
        Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });

    private readonly Lock _lock = new();
    private HashSet<string> _paths = [];
    private bool _overflowed;

    internal XenStoreWatch(string path, string token)
    {
        Path = path;
        Token = token;
    }

    /// <summary>The path as it was given.</summary>
    public string Path { get; }

    internal string Token { get; }

    /// <summary>
    /// Waits until something changed and takes what did: the changed paths, or none when there were too many to keep,
    /// which means that all may have changed.
    /// </summary>
    public async Task<IReadOnlyCollection<string>> WaitAsync(CancellationToken cancellation)
    {
        await _signal.Reader.ReadAsync(cancellation).ConfigureAwait(false);
        lock (_lock)
        {
            IReadOnlyCollection<string> taken = _overflowed ? [] : _paths;
            _paths = [];
            _overflowed = false;
            return taken;
        }
    }

    internal void Add(string path)
    {
        lock (_lock)
        {
            if (_paths.Count < MaxPaths) _paths.Add(path);
            else if (!_paths.Contains(path)) _overflowed = true;
            _signal.Writer.TryWrite(true);
        }
    }

    internal void AddAll()
    {
        lock (_lock)
        {
            _overflowed = true;
            _signal.Writer.TryWrite(true);
        }
    }
}
