using System.Runtime.CompilerServices;
using System.Threading.Tasks.Sources;
using NUnit.Framework;
using Ublkback.Block;

namespace Ublkback.Tests.Block;

public sealed class PipelineAllocationTests
{
    private const int Depth = 128;

    [Test]
    public void Requests_through_two_hooks_allocate_nothing_in_the_steady_state()
    {
        GateImage image = new();
        BlockPipeline pipeline = new([("a", new CountingHook()), ("b", new CountingHook())], image, _ => { });
        Slot[] slots = [.. Enumerable.Range(0, Depth).Select(_ => new Slot())];
        for (int warm = 0; warm < 100; warm++) RunAll();

        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int round = 0; round < 1000; round++) RunAll();
        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;

        Assert.That(allocated, Is.Zero);
        Assert.That(slots.Sum(slot => slot.Okay), Is.EqualTo(1100L * Depth));

        void RunAll()
        {
            foreach (Slot slot in slots) slot.Start(pipeline);
            image.EndAll();
        }
    }

    private sealed class CountingHook : BlockHook
    {
        private long _seen;

        [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
        public override async ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next)
        {
            BlockStatus status = await next.HandleAsync(request);
            _seen++;
            return status;
        }
    }

    private sealed class Slot
    {
        private readonly BlockRequest _request =
            new() { Operation = BlockOperation.Read, SectorCount = 8, Data = new byte[4096] };
        private readonly Action _onEnded;
        private ValueTaskAwaiter<BlockStatus> _awaiter;

        public Slot() => _onEnded = () => Okay += _awaiter.GetResult() == BlockStatus.Okay ? 1 : 0;

        public long Okay { get; private set; }

        public void Start(BlockPipeline image)
        {
            _awaiter = image.HandleAsync(_request).GetAwaiter();
            _awaiter.UnsafeOnCompleted(_onEnded);
        }
    }

    private sealed class GateImage : IBlockImage
    {
        private readonly Gate[] _gates = [.. Enumerable.Range(0, Depth).Select(_ => new Gate())];
        private int _count;

        public ImageGeometry Geometry { get; } = new(2048, 512, 512, IsReadOnly: false);

        public string Identity => "gate";

        public ValueTask<BlockStatus> HandleAsync(BlockRequest request) => _gates[_count++].WaitAsync();

        public void EndAll()
        {
            int count = _count;
            _count = 0;
            for (int i = 0; i < count; i++) _gates[i].Open();
        }

        public ValueTask DisposeAsync() => default;
    }

    private sealed class Gate : IValueTaskSource<BlockStatus>
    {
        private ManualResetValueTaskSourceCore<BlockStatus> _core;

        public ValueTask<BlockStatus> WaitAsync() => new(this, _core.Version);

        public void Open() => _core.SetResult(BlockStatus.Okay);

        public ValueTaskSourceStatus GetStatus(short token) => _core.GetStatus(token);

        public void OnCompleted(
            Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
            _core.OnCompleted(continuation, state, token, ValueTaskSourceOnCompletedFlags.None);

        public BlockStatus GetResult(short token)
        {
            BlockStatus result = _core.GetResult(token);
            _core.Reset();
            return result;
        }
    }
}
