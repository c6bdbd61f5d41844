using BenchmarkDotNet.Attributes;
using Mono.Unix.Native;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;

namespace Ublkback.Benchmarks;

/// <summary>
/// Reads of 4 KiB through a worker's io_uring, of /dev/zero so that only the path itself is measured.
/// </summary>
[MemoryDiagnoser]
public class WorkerBenchmarks
{
    private const int Depth = 128;
    private const int Rounds = 100;

    private Worker _worker = null!;
    private FileDescriptor _file = null!;
    private Memory<byte> _buffer;

    [GlobalSetup]
    public void Start()
    {
        MonoPosixHelper.Register();
        _worker = new Worker("test");
        _file = FileDescriptor.Open("/dev/zero", OpenFlags.O_RDONLY);
        _buffer = PinnedMemory.Allocate(4096);
    }

    [GlobalCleanup]
    public void Stop()
    {
        _worker.Dispose();
        _file.Dispose();
    }

    [Benchmark(OperationsPerInvoke = Depth * Rounds)]
    public async Task<int> Reads()
    {
        TaskCompletionSource<int> done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _worker.Post(async () =>
        {
            ValueTask<int>[] reads = new ValueTask<int>[Depth];
            int bytes = 0;
            for (int round = 0; round < Rounds; round++)
            {
                for (int i = 0; i < Depth; i++) reads[i] = _worker.Operations.ReadAsync(_file, _buffer, 0);
                for (int i = 0; i < Depth; i++) bytes += await reads[i];
            }

            done.SetResult(bytes);
        });
        return await done.Task;
    }
}
