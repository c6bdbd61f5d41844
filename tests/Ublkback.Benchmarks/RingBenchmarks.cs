using BenchmarkDotNet.Attributes;
using Ublkback.Blkif;
using Ublkback.Linux.Kernel;

namespace Ublkback.Benchmarks;

/// <summary>A request through the ring and its response back, both ends, a ring full at a time.</summary>
[MemoryDiagnoser]
public class RingBenchmarks
{
    private const int Order = 4;
    private const int Slots = 32 << Order;

    private MemoryMapping _memory = null!;
    private MemoryMapping _journal = null!;
    private FrontRing _front = null!;
    private BackRing _back = null!;

    [GlobalSetup]
    public unsafe void Map()
    {
        _memory = MemoryMapping.Anonymous(BlkifConstants.PageSize << Order);
        _front = new FrontRing((nint)_memory.Address, Order, BlkifAbi.X86_64);
        _journal = MemoryMapping.Anonymous(RingJournal.SizeOf(Slots));
        _back = BackRing.Create(
            (nint)_memory.Address, Order, BlkifAbi.X86_64, new RingJournal((nint)_journal.Address, Slots));
    }

    [GlobalCleanup]
    public void Unmap()
    {
        _memory.Dispose();
        _journal.Dispose();
    }

    [Benchmark(OperationsPerInvoke = Slots)]
    public int ParseAndRespond()
    {
        BlkifRequest request = new() { Operation = BlkifOperation.Read, SegmentCount = 1 };
        for (int i = 0; i < Slots; i++)
        {
            request.Id = (ulong)i;
            _front.Put(request);
        }

        _front.Push();
        int waiting = _back.CountWaiting();
        for (int i = 0; i < waiting; i++)
        {
            _back.Take(i, out BlkifRequest taken);
            _back.Put(i, new BlkifResponse(taken.Id, taken.Operation, BlkifStatus.Okay));
        }

        _back.Publish();
        int answers = 0;
        while (_front.TryTake(out _)) answers++;
        return answers;
    }
}
