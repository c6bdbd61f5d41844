using System.Net.Sockets;
using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Images.Raw;
using Ublkback.Linux.Workers;
using Ublkback.Nbd.Client;
using Ublkback.Nbd.Server;
using Ublkback.Tests.Images;

namespace Ublkback.Tests.Nbd;

/// <summary>A disk in memory, which servers offer, and clients of it; each on a worker of its own.</summary>
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public abstract class NbdFixture
{
    protected const int DiskSize = 4 << 20;

    private readonly List<IBlockImage> _clients = [];
    private readonly List<Worker> _moreWorkers = [];

    protected static TimeSpan Soon { get; } = TimeSpan.FromSeconds(20);

    protected string Folder { get; } = Directory.CreateTempSubdirectory("ublkback-nbd-").FullName;

    protected string SocketPath => Path.Combine(Folder, "s");

    protected Worker ServerWorker { get; } = new("server");

    protected Worker ClientWorker { get; } = new("client");

    /// <summary>What was said about errors.</summary>
    protected System.Collections.Concurrent.ConcurrentQueue<string> Warnings { get; } = new();

    protected IBlockImage Disk { get; private set; } = null!;

    [SetUp]
    public void MakeDisk() =>
        Disk = ScratchImageOpener.OpenMemory(BlockTarget.Parse($"memory:{DiskSize}"), Opening(false));

    [TearDown]
    public async Task Clean()
    {
        foreach (IBlockImage client in _clients) await client.DisposeAsync().AsTask().WaitAsync(Soon);
        await Disk.DisposeAsync();
        foreach (Worker worker in _moreWorkers) worker.Dispose();
        ServerWorker.Dispose();
        ClientWorker.Dispose();
        Directory.Delete(Folder, recursive: true);
    }

    /// <summary>Another worker, which ends with the test.</summary>
    protected Worker AddWorker()
    {
        _moreWorkers.Add(new Worker($"more {_moreWorkers.Count}"));
        return _moreWorkers[^1];
    }

    protected NbdServer Serve(IBlockImage? disk = null, NbdServerOptions? options = null)
    {
        File.Delete(SocketPath);
        return new NbdServer(
            options ?? new NbdServerOptions(new UnixDomainSocketEndPoint(SocketPath)), disk ?? Disk, [ServerWorker],
            Warnings.Enqueue);
    }

    private protected ImageDriver Open(string options = "", bool isReadOnly = false) =>
        OpenTarget($"nbd:unix:{SocketPath}{options}", isReadOnly);

    private protected ImageDriver OpenTarget(string target, bool isReadOnly = false)
    {
        IBlockImage client = NbdOpener.Open(BlockTarget.Parse(target), Opening(isReadOnly));
        _clients.Add(client);
        return new ImageDriver(ClientWorker, client);
    }

    protected static byte[] Bytes(int seed, int length)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    private ImageOpening Opening(bool isReadOnly) => new("the test", 1, isReadOnly, true, null, Warnings.Enqueue);
}
