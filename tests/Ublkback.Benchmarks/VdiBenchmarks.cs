using System.Globalization;
using BenchmarkDotNet.Attributes;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;
using Ublkback.Parallax.Admin;

namespace Ublkback.Benchmarks;

/// <summary>Clones of a VDI of 100 GiB that is in use, without the start of a command.</summary>
[MemoryDiagnoser]
public class VdiBenchmarks
{
    private const long DiskSize = 100L << 30;
    private const int Depth = 16;

    private readonly string _folder = Directory.CreateTempSubdirectory("ublkback-vdi-").FullName;
    private Worker _worker = null!;
    private VdiAdmin _store = null!;
    private IBlockImage _image = null!;
    private int _count;

    /// <summary>Blocks of 4 KiB that were written at random places before.</summary>
    [Params(Depth, 100_000)]
    public int Written { get; set; }

    private string StoreOption => $"file:{_folder}/store";

    [GlobalSetup]
    public async Task Start()
    {
        MonoPosixHelper.Register();
        _worker = new Worker("test");
        _store = VdiAdmin.Open(StoreOption, makes: true, _worker, Opening);
        _store.Create("golden", DiskSize);
        _image = VdiOpener.Open(BlockTarget.Parse($"vdi:golden?store={StoreOption}"), Opening(false));
        await _worker.InvokeAsync(
            () => Task.WhenAll(Enumerable.Range(0, Depth).Select(i => WriteAsync(new Random(i)))));
        await _store.SnapshotAsync("golden", "v");
    }

    [GlobalCleanup]
    public async Task Stop()
    {
        await _image.DisposeAsync();
        _store.Dispose();
        _worker.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Benchmark]
    public void Clone() => _store.Clone("golden@v", string.Create(CultureInfo.InvariantCulture, $"clone{_count++}"));

    private static ImageOpening Opening(bool isReadOnly) =>
        new("the benchmark", 1, isReadOnly, true, null, Console.Error.WriteLine);

    private async Task WriteAsync(Random random)
    {
        BlockRequest request =
            new() { Operation = BlockOperation.Write, SectorCount = 8, Data = PinnedMemory.AllocatePages(4096) };
        for (int left = Written / Depth; left > 0; left--)
        {
            request.Sector = (ulong)random.NextInt64(DiskSize / 4096) * 8;
            if (await _image.HandleAsync(request) != BlockStatus.Okay)
                throw new InvalidOperationException("a write failed");
        }
    }
}
