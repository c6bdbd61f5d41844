using System.Diagnostics;
using BenchmarkDotNet.Attributes;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;
using Ublkback.Nbd.Client;

namespace Ublkback.Benchmarks;

/// <summary>
/// Random reads of 4 KiB from <c>nbdkit memory</c> over a Unix socket; compare with fio's engine nbd.
/// </summary>
[MemoryDiagnoser]
public class NbdBenchmarks
{
    private const int Reads = 40_000;
    private const long DiskSize = 256 << 20;

    private readonly string _folder = Directory.CreateTempSubdirectory("ublkback-nbd-").FullName;
    private Process _server = null!;
    private Worker _worker = null!;
    private IBlockImage _image = null!;
    private Random _random = null!;

    [Params(1, 16, 32)]
    public int Depth { get; set; }

    private string Socket => Path.Combine(_folder, "s");

    [GlobalSetup]
    public void Start()
    {
        MonoPosixHelper.Register();
        _server = Process.Start("nbdkit", ["-f", "-U", Socket, "memory", $"{DiskSize}"]);
        while (!File.Exists(Socket)) Thread.Sleep(10);
        _worker = new Worker("test");
        _random = new Random(1);
        _image = NbdOpener.Open(
            BlockTarget.Parse($"nbd:unix:{Socket}"),
            new ImageOpening("the benchmark", 1, false, true, null, Console.Error.WriteLine));
    }

    [GlobalCleanup]
    public void Stop()
    {
        _image.DisposeAsync().AsTask().GetAwaiter().GetResult();
        _worker.Dispose();
        _server.Kill();
        _server.Dispose();
        File.Delete(Socket);
    }

    [Benchmark(OperationsPerInvoke = Reads)]
    public Task Read() => _worker.InvokeAsync(() => Task.WhenAll(Enumerable.Range(0, Depth).Select(_ => LoopAsync())));

    private async Task LoopAsync()
    {
        BlockRequest request =
            new() { Operation = BlockOperation.Read, SectorCount = 8, Data = PinnedMemory.AllocatePages(4096) };
        for (int left = Reads / Depth; left > 0; left--)
        {
            request.Sector = (ulong)_random.NextInt64(DiskSize / 4096) * 8;
            if (await _image.HandleAsync(request) != BlockStatus.Okay)
                throw new InvalidOperationException("a read failed");
        }
    }
}
