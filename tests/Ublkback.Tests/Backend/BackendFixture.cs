using Microsoft.Extensions.Logging.Abstractions;
using NUnit.Framework;
using Ublkback.Backend.Connections;
using Ublkback.Backend.Grants;
using Ublkback.Backend.Journals;
using Ublkback.Backend.Requests;
using Ublkback.Backend.Vbds;
using Ublkback.Blkif;
using Ublkback.Block;
using Ublkback.EmulatedHost;
using Ublkback.EmulatedHost.Frontend;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;
using Ublkback.Xen;
using Ublkback.XenStore;

namespace Ublkback.Tests.Backend;

/// <summary>
/// An emulated host with a backend in this process, whose images a test controls. The targets are gate:NAME.
/// </summary>
public abstract class BackendFixture
{
    private readonly CancellationTokenSource _stopping = new();
    private string _directory = null!;
    private EmulatedXen _host = null!;
    private List<Worker> _workers = null!;
    private Task _serving = null!;

    protected static TimeSpan Soon { get; } = TimeSpan.FromSeconds(20);

    protected Dictionary<string, GateImage> Images { get; } = [];

    /// <summary>The images with targets manual:NAME.</summary>
    protected Dictionary<string, ManualImage> ManualImages { get; } = [];

    /// <summary>The only worker.</summary>
    protected Worker Worker => _workers[0];

    protected CountingHypervisor Hypervisor { get; private set; } = null!;

    protected RequestBudget Requests { get; } = new();

    protected XenStoreClient Store { get; private set; } = null!;

    protected VbdDirectory Vbds { get; private set; } = null!;

    protected EmulatedGuest Guest { get; private set; } = null!;

    [SetUp]
    public async Task StartHost()
    {
        _directory = Directory.CreateTempSubdirectory("ublkback-test-").FullName;
        _host = await EmulatedXen.StartAsync(_directory);
        Store = XenStoreClient.Open(new XenStoreTransport(_host.Layout.StoreSocket));
        _workers = [new Worker("test")];
        Hypervisor = new CountingHypervisor(new EmulatedHypervisor(_host.Layout, 0));
        BlockCatalog catalog = new BlockCatalog()
            .AddImage("gate", (target, _) => Images[target.Location] = new GateImage())
            .AddImage("manual", (target, _) => ManualImages[target.Location] = new ManualImage());
        Vbds = new VbdDirectory(new BackendServices(
            Store, "/local/domain/0", Hypervisor, _workers, catalog, new KernelBlkback(_host.Layout.Sysfs),
            new GrantBudget(), Requests, new JournalDirectory(_host.Layout.RunDirectory),
            Path.Combine(_host.Layout.RunDirectory, "qemu"), NullLogger.Instance));
        _serving = Vbds.RunAsync(_stopping.Token);
        await Vbds.Ready;
        await Store.IntroduceAsync(1);
        Guest = new EmulatedGuest(_host.Layout, 1);
    }

    [TearDown]
    public async Task StopHost()
    {
        foreach (GateImage image in Images.Values) image.Open();
        foreach (ManualImage image in ManualImages.Values) image.EndAll();
        await _stopping.CancelAsync();
        await _serving.WaitAsync(Soon);
        foreach (Worker worker in _workers) worker.Dispose();
        Guest.Dispose();
        Hypervisor.Dispose();
        await Store.DisposeAsync();
        await _host.DisposeAsync();
        Directory.Delete(_directory, recursive: true);
    }

    /// <summary>
    /// Ends when the worker has had its turns for all events that were sent before: what is posted comes after them.
    /// </summary>
    protected async Task WorkerHasLookedAsync()
    {
        const int TurnsOfARequest = 3;
        for (int i = 0; i < TurnsOfARequest; i++) await _workers[0].RunAsync(() => { });
    }

    /// <summary>Makes the nodes of a disk and a frontend that is connected to it.</summary>
    protected async Task<Blkfront> ConnectAsync(
        int deviceId, string name, string scheme = "gate", BlkfrontOptions? options = null)
    {
        string backend = $"/local/domain/0/backend/vbd/1/{deviceId}";
        string frontend = FrontendConnection.FrontendPath(1, deviceId);
        await Store.TransactAsync(async transaction =>
        {
            foreach ((string node, string value) in new[] { ("backend", backend), ("backend-id", "0"), ("state", "1") })
                await transaction.WriteAsync($"{frontend}/{node}", value);
            foreach ((string node, string value) in new[]
            {
                ("frontend", frontend), ("params", $"{scheme}:{name}"), ("script", "/etc/xen/scripts/block-ublkback"),
                ("online", "1"), ("mode", "w"), ("state", "1"),
            })
            {
                await transaction.WriteAsync($"{backend}/{node}", value);
            }

            return true;
        });
        return await Blkfront.ConnectAsync(
            Guest, Store, deviceId, options ?? new BlkfrontOptions(BlkifAbi.X86_64), Soon);
    }

    /// <summary>Writes a node of a disk's backend directory.</summary>
    protected Task WriteBackendAsync(int deviceId, string node, string value) =>
        Store.WriteAsync($"/local/domain/0/backend/vbd/1/{deviceId}/{node}", value);

    /// <summary>An image that holds its requests back until it is opened.</summary>
    protected sealed class GateImage : IBlockImage
    {
        private readonly TaskCompletionSource _gate = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly SemaphoreSlim _arrived = new(0);
        private readonly TaskCompletionSource _disposed = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public string Identity => "gate";

        public ImageGeometry Geometry => new(2048, 512, 512, IsReadOnly: false);

        public Task Disposed => _disposed.Task;

        public int DisposeCount { get; private set; }

        public Task ArrivedAsync() => _arrived.WaitAsync(Soon);

        public void Open() => _gate.TrySetResult();

        public ValueTask<BlockStatus> HandleAsync(BlockRequest request)
        {
            // Ended by an action on the worker, when whoever waits does so already: a request ends on its worker.
            Worker worker = Worker.Current;
            TaskCompletionSource<BlockStatus> done = new();
            _gate.Task.ContinueWith(
                _ => worker.Post(() => done.SetResult(BlockStatus.Okay)), TaskScheduler.Default);
            _arrived.Release();
            return new ValueTask<BlockStatus>(done.Task);
        }

        public ValueTask DisposeAsync()
        {
            DisposeCount++;
            _disposed.SetResult();
            return default;
        }
    }

    /// <summary>Counts what is mapped and bound, and what of it was given back.</summary>
    protected sealed class CountingHypervisor(IHypervisor inner) : IHypervisor
    {
        private int _mapped;
        private int _bound;

        public (int Mapped, int Bound) Held => (_mapped, _bound);

        public int MapCount { get; private set; }

        public IGrantMapping MapGrants(ushort domid, ReadOnlySpan<uint> references)
        {
            IGrantMapping mapping = inner.MapGrants(domid, references);
            MapCount++;
            Interlocked.Increment(ref _mapped);
            return new Mapping(mapping, () => Interlocked.Decrement(ref _mapped));
        }

        public void CopyGrants(Span<GrantCopy> batch) => inner.CopyGrants(batch);

        public IEventChannel BindEventChannel(ushort domid, uint remotePort)
        {
            IEventChannel channel = inner.BindEventChannel(domid, remotePort);
            Interlocked.Increment(ref _bound);
            return new Channel(channel, () => Interlocked.Decrement(ref _bound));
        }

        public void Dispose() => inner.Dispose();

        private sealed class Mapping(IGrantMapping inner, Action onDispose) : IGrantMapping
        {
            public nint Address => inner.Address;

            public void Dispose()
            {
                inner.Dispose();
                onDispose();
            }
        }

        private sealed class Channel(IEventChannel inner, Action onDispose) : IEventChannel
        {
            public FileDescriptor Descriptor => inner.Descriptor;

            public int ReadLength => inner.ReadLength;

            public bool MustUnmask => inner.MustUnmask;

            public void Notify() => inner.Notify();

            public void Dispose()
            {
                inner.Dispose();
                onDispose();
            }
        }
    }
}
