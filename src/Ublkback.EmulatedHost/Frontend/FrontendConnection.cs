using System.Globalization;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.XenStore;

namespace Ublkback.EmulatedHost.Frontend;

/// <summary>A frontend's conversation with a backend over the store, and the queues that come of it.</summary>
public sealed class FrontendConnection : IDisposable
{
    private readonly XenStoreClient _store;
    private readonly string _path;
    private readonly string _backendPath;

    private FrontendConnection(
        EmulatedGuest guest, XenStoreClient store, string path, string backendPath, int backendDomid,
        BlkfrontOptions options)
    {
        _store = store;
        _path = path;
        _backendPath = backendPath;
        BackendDomid = backendDomid;
        Options = options;
        Queues = [.. Enumerable.Range(0, options.Queues).Select(_ => new FrontQueue(guest, backendDomid, options))];
    }

    /// <summary>How it is connected.</summary>
    public BlkfrontOptions Options { get; }

    /// <summary>The backend's domain.</summary>
    public int BackendDomid { get; }

    /// <summary>The queues.</summary>
    public IReadOnlyList<FrontQueue> Queues { get; }

    /// <summary>Size of the disk in sectors of 512 bytes, as it was read last.</summary>
    public ulong SectorCount { get; private set; }

    /// <summary>Smallest unit of a request in bytes.</summary>
    public int SectorSize { get; private set; }

    /// <summary>The flags of blkif.h: 1 CD-ROM, 2 removable, 4 read-only.</summary>
    public int Info { get; private set; }

    /// <summary>The frontend directory of a disk.</summary>
    public static string FrontendPath(int domid, int deviceId) =>
        string.Create(CultureInfo.InvariantCulture, $"/local/domain/{domid}/device/vbd/{deviceId}");

    /// <summary>Connects to the backend of a device that the toolstack has made.</summary>
    /// <exception cref="TimeoutException">The backend did not come along in time.</exception>
    public static async Task<FrontendConnection> ConnectAsync(
        EmulatedGuest guest, XenStoreClient store, int deviceId, BlkfrontOptions options, TimeSpan timeout)
    {
        string path = FrontendPath(guest.Domid, deviceId);
        string backend = await store.ReadAsync($"{path}/backend").ConfigureAwait(false)
            ?? throw new InvalidOperationException($"{path} has no backend: attach the disk first");
        int backendDomid = int.Parse(
            await store.ReadAsync($"{path}/backend-id").ConfigureAwait(false) ?? "0", CultureInfo.InvariantCulture);
        await WaitForStateAsync(store, backend, timeout, "2", "4").ConfigureAwait(false);

        FrontendConnection connection = new(guest, store, path, backend, backendDomid, options);
        try
        {
            await connection.PublishAsync().ConfigureAwait(false);
            await WaitForStateAsync(store, backend, timeout, "4").ConfigureAwait(false);
            await connection.ReadBackendAsync().ConfigureAwait(false);
            await store.WriteAsync($"{path}/state", "4").ConfigureAwait(false);
            return connection;
        }
        catch
        {
            connection.Dispose();
            throw;
        }
    }

    /// <summary>Reads what the backend says of the disk.</summary>
    public async Task ReadBackendAsync()
    {
        SectorCount = ulong.Parse(await NeedAsync("sectors").ConfigureAwait(false), CultureInfo.InvariantCulture);
        SectorSize = int.Parse(await NeedAsync("sector-size").ConfigureAwait(false), CultureInfo.InvariantCulture);
        Info = int.Parse(await NeedAsync("info").ConfigureAwait(false), CultureInfo.InvariantCulture);

        async Task<string> NeedAsync(string name) =>
            await BackendNodeAsync(name).ConfigureAwait(false)
            ?? throw new InvalidDataException($"the backend has no node {name}");
    }

    /// <summary>A node of the backend's directory, such as a feature; null when it is not there.</summary>
    public Task<string?> BackendNodeAsync(string name) => _store.ReadAsync($"{_backendPath}/{name}");

    /// <summary>Closes as a guest does that lets go of the disk: Closing, Closed, and the backend follows.</summary>
    public async Task CloseAsync(TimeSpan timeout)
    {
        await _store.WriteAsync($"{_path}/state", "5").ConfigureAwait(false);
        await WaitForStateAsync(_store, _backendPath, timeout, "5", "6", null).ConfigureAwait(false);
        await _store.WriteAsync($"{_path}/state", "6").ConfigureAwait(false);
        await WaitForStateAsync(_store, _backendPath, timeout, "6", null).ConfigureAwait(false);
    }

    /// <summary>Takes the rings back without a word to the backend.</summary>
    public void Dispose()
    {
        foreach (FrontQueue queue in Queues) queue.Dispose();
    }

    /// <summary>Waits until a directory's state is one of some; null stands for a missing one.</summary>
    /// <exception cref="TimeoutException">It does not become one in time.</exception>
    public static async Task WaitForStateAsync(
        XenStoreClient store, string path, TimeSpan timeout, params string?[] states)
    {
        XenStoreWatch watch = await store.WatchAsync($"{path}/state").ConfigureAwait(false);
        using CancellationTokenSource limit = new(timeout);
        string? state = null;
        try
        {
            do
            {
                await watch.WaitAsync(limit.Token).ConfigureAwait(false);
                state = await store.ReadAsync($"{path}/state").ConfigureAwait(false);
            }
            while (!states.Contains(state));
        }
        catch (OperationCanceledException)
        {
            throw new TimeoutException(
                $"{path} stays in state {state ?? "(none)"}; awaited: {string.Join(", ", states)}");
        }
        finally
        {
            await store.UnwatchAsync(watch).ConfigureAwait(false);
        }
    }

    private Task<bool> PublishAsync() => _store.TransactAsync(async transaction =>
    {
        foreach ((string name, string value) in Describe())
            await transaction.WriteAsync($"{_path}/{name}", value).ConfigureAwait(false);
        await transaction.WriteAsync($"{_path}/state", "3").ConfigureAwait(false);
        return true;
    });

    private IEnumerable<(string Name, string Value)> Describe()
    {
        yield return ("protocol", Options.Abi.Protocol);
        yield return ("feature-persistent", Options.IsPersistent ? "1" : "0");
        if (Options.RingPageOrder is int order)
            yield return ("ring-page-order", order.ToString(CultureInfo.InvariantCulture));
        if (Queues.Count > 1)
            yield return ("multi-queue-num-queues", Queues.Count.ToString(CultureInfo.InvariantCulture));
        for (int i = 0; i < Queues.Count; i++)
        {
            // A single queue is described at the top.
            string prefix = Queues.Count == 1 ? "" : string.Create(CultureInfo.InvariantCulture, $"queue-{i}/");
            foreach ((string name, string value) in Queues[i].Describe(Options.RingPageOrder is not null))
                yield return (prefix + name, value);
        }
    }
}
