using System.Collections.Concurrent;
using System.Globalization;

namespace Ublkback.XenStore;

/// <summary>
/// A client of the store that outlives its connections: over a socket a lost one is reported, made again, and all
/// watches are registered anew, so that each fires and its owner reads the world again. Requests that were under way
/// fail. Any thread.
/// </summary>
public sealed class XenStoreClient : IXenStore, IAsyncDisposable
{
    private const int MaxTransactionAttempts = 1000;
    private const int FirstReconnectDelayMs = 10;
    private const int MaxReconnectDelayMs = 1000;

    private readonly XenStoreTransport _transport;
    private readonly ConcurrentDictionary<string, XenStoreWatch> _watches = new();
    private readonly CancellationTokenSource _closing = new();
    private readonly XenStoreOperations _plain;
    private readonly Task _keeping;
    private volatile XenStoreConnection _connection;
    private int _lastToken;

    private XenStoreClient(XenStoreTransport transport)
    {
        _transport = transport;
        _plain = new XenStoreOperations(RequestAsync, transaction: 0);
        _connection = Connect();
        _keeping = KeepAsync();
    }

    /// <summary>Raised, with the cause, when the connection was lost.</summary>
    public event Action<string>? Lost;

    /// <summary>Raised when a lost connection was made again.</summary>
    public event Action? Reconnected;

    /// <summary>Connects.</summary>
    /// <exception cref="XenStoreException">There is no store at that place.</exception>
    public static XenStoreClient Open(XenStoreTransport transport) => new(transport);

    /// <inheritdoc/>
    public Task<string?> ReadAsync(string path) => _plain.ReadAsync(path);

    /// <inheritdoc/>
    public Task WriteAsync(string path, string value) => _plain.WriteAsync(path, value);

    /// <inheritdoc/>
    public Task MakeDirectoryAsync(string path) => _plain.MakeDirectoryAsync(path);

    /// <inheritdoc/>
    public Task RemoveAsync(string path) => _plain.RemoveAsync(path);

    /// <inheritdoc/>
    public Task<string[]?> ListAsync(string path) => _plain.ListAsync(path);

    /// <inheritdoc/>
    public Task<string[]> GetPermissionsAsync(string path) => _plain.GetPermissionsAsync(path);

    /// <inheritdoc/>
    public Task SetPermissionsAsync(string path, params string[] permissions) =>
        _plain.SetPermissionsAsync(path, permissions);

    /// <summary>Home path of a domain.</summary>
    public async Task<string> GetDomainPathAsync(int domid) =>
        XenStoreCodec.SplitStrings(
            await AskAsync(XenStoreMessageType.GetDomainPath, Number(domid)).ConfigureAwait(false)) is [string path, ..]
            ? path
            : throw new XenStoreException(XenStoreError.Io, $"an empty domain path for {domid}");

    /// <summary>Whether the store knows a domain.</summary>
    public async Task<bool> IsDomainIntroducedAsync(int domid) =>
        await AskAsync(XenStoreMessageType.IsDomainIntroduced, Number(domid)).ConfigureAwait(false) is [(byte)'T', ..];

    /// <summary>Tells the store of a new domain; for toolstacks.</summary>
    public Task IntroduceAsync(int domid) => AskAsync(XenStoreMessageType.Introduce, Number(domid), "0", "0");

    /// <summary>Tells the store that a domain is gone; for toolstacks.</summary>
    public Task ReleaseAsync(int domid) => AskAsync(XenStoreMessageType.Release, Number(domid));

    /// <summary>
    /// Runs a body in a transaction, again as often as the store answers EAGAIN; on any failure it aborts.
    /// </summary>
    public async Task<T> TransactAsync<T>(Func<IXenStore, Task<T>> body)
    {
        for (int attempt = 1; ; attempt++)
        {
            XenStoreConnection connection = _connection;
            byte[] reply = await connection.RequestAsync(
                XenStoreMessageType.TransactionStart, 0, [0], "").ConfigureAwait(false);
            uint id = uint.Parse(XenStoreCodec.SplitStrings(reply)[0], CultureInfo.InvariantCulture);
            T result;
            try
            {
                result = await body(new XenStoreOperations(connection.RequestAsync, id)).ConfigureAwait(false);
            }
            catch
            {
                await AbortAsync(connection, id).ConfigureAwait(false);
                throw;
            }

            try
            {
                await connection.RequestAsync(
                    XenStoreMessageType.TransactionEnd, id, XenStoreCodec.Strings("T"), "").ConfigureAwait(false);
                return result;
            }
            catch (XenStoreException failure)
                when (failure.Error == XenStoreError.Again && attempt < MaxTransactionAttempts)
            {
                // Another transaction came first.
            }
        }
    }

    /// <summary>Watches a path and all below it.</summary>
    public async Task<XenStoreWatch> WatchAsync(string path)
    {
        XenStoreWatch watch = new(path, Number(Interlocked.Increment(ref _lastToken)));
        _watches[watch.Token] = watch;
        try
        {
            await AskAsync(XenStoreMessageType.Watch, path, watch.Token).ConfigureAwait(false);
            return watch;
        }
        catch
        {
            _watches.TryRemove(watch.Token, out _);
            throw;
        }
    }

    /// <summary>Ends a watch; one that is gone already is no error.</summary>
    public async Task UnwatchAsync(XenStoreWatch watch)
    {
        if (!_watches.TryRemove(watch.Token, out _)) return;
        try
        {
            await AskAsync(XenStoreMessageType.Unwatch, watch.Path, watch.Token).ConfigureAwait(false);
        }
        catch (XenStoreException failure) when (failure.Error is XenStoreError.NoEntry or XenStoreError.Disconnected)
        {
            // The watch went with its connection.
        }
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        await _closing.CancelAsync().ConfigureAwait(false);
        _connection.Dispose();
        if (_transport.CanReconnect) await _keeping.ConfigureAwait(false); // a read of the device cannot be ended
        _closing.Dispose();
    }

    private static string Number(int value) => value.ToString(CultureInfo.InvariantCulture);

    private static async Task AbortAsync(XenStoreConnection connection, uint transaction)
    {
        try
        {
            await connection.RequestAsync(
                XenStoreMessageType.TransactionEnd, transaction, XenStoreCodec.Strings("F"), "").ConfigureAwait(false);
        }
        catch (XenStoreException)
        {
            // The failure that led here is the one to report.
        }
    }

    private XenStoreConnection Connect() => new(_transport.Open(), OnWatchEvent);

    private void OnWatchEvent(string path, string token)
    {
        if (_watches.TryGetValue(token, out XenStoreWatch? watch)) watch.Add(path);
    }

    private Task<byte[]> AskAsync(XenStoreMessageType type, params string[] arguments) =>
        RequestAsync(type, 0, XenStoreCodec.Strings(arguments), arguments[0]);

    private Task<byte[]> RequestAsync(XenStoreMessageType type, uint transaction, byte[] payload, string subject) =>
        _connection.RequestAsync(type, transaction, payload, subject);

    /// <summary>False if a lost connection stays lost: the kernel's device cannot be opened twice.</summary>
    public bool CanReconnect => _transport.CanReconnect;

    private async Task KeepAsync()
    {
        while (true)
        {
            Exception cause = await _connection.Lost.ConfigureAwait(false);
            if (_closing.IsCancellationRequested) return;
            Lost?.Invoke(cause.Message);
            if (!_transport.CanReconnect) return;
            _connection.Dispose();
            if (!await ReconnectAsync().ConfigureAwait(false)) return;
            Reconnected?.Invoke();
        }
    }

    private async Task<bool> ReconnectAsync()
    {
        for (int delayMs = FirstReconnectDelayMs; ; delayMs = Math.Min(delayMs * 2, MaxReconnectDelayMs))
        {
            try
            {
                await Task.Delay(delayMs, _closing.Token).ConfigureAwait(false);
                _connection = Connect();
                foreach (XenStoreWatch watch in _watches.Values) await RegisterAgainAsync(watch).ConfigureAwait(false);
                return true;
            }
            catch (XenStoreException failure) when (failure.Error is XenStoreError.Disconnected)
            {
                // Not yet.
            }
            catch (OperationCanceledException)
            {
                return false;
            }
        }
    }

    private async Task RegisterAgainAsync(XenStoreWatch watch)
    {
        try
        {
            await AskAsync(XenStoreMessageType.Watch, watch.Path, watch.Token).ConfigureAwait(false);
        }
        catch (XenStoreException failure) when (failure.Error == XenStoreError.Exists)
        {
            // Its owner registered it just now.
        }

        watch.AddAll();
    }
}
