using System.Threading.Tasks.Sources;
using BenchmarkDotNet.Attributes;
using Ublkback.Block;

namespace Ublkback.Benchmarks;

/// <summary>Requests that pass hooks and wait in the image, 128 at a time: what a hook costs.</summary>
[MemoryDiagnoser]
public class PipelineBenchmarks
{
    private const int Depth = 128;

    private readonly GateImage _image = new();
    private readonly ValueTask<BlockStatus>[] _under = new ValueTask<BlockStatus>[Depth];
    private readonly BlockRequest[] _requests =
        [.. Enumerable.Range(0, Depth)
            .Select(_ => new BlockRequest { Operation = BlockOperation.Read, SectorCount = 8, Data = new byte[4096] })];

    private BlockPipeline _one = null!;
    private BlockPipeline _two = null!;
    private BlockPipeline _three = null!;

    [GlobalSetup]
    public void Build()
    {
        (string, BlockHook) pass = ("pass", new PassingHook());
        _one = new BlockPipeline([pass], _image, _ => { });
        _two = new BlockPipeline([pass, ("pass", new PassingHook())], _image, _ => { });
        _three = new BlockPipeline([pass, ("pass", new PassingHook()), ("pass", new PassingHook())], _image, _ => { });
    }

    [Benchmark(Baseline = true, OperationsPerInvoke = Depth)]
    public int NoHook() => Run(_image);

    [Benchmark(OperationsPerInvoke = Depth)]
    public int OneHook() => Run(_one);

    [Benchmark(OperationsPerInvoke = Depth)]
    public int TwoHooks() => Run(_two);

    [Benchmark(OperationsPerInvoke = Depth)]
    public int ThreeHooks() => Run(_three);

    private int Run(IBlockImage image)
    {
        for (int i = 0; i < Depth; i++) _under[i] = image.HandleAsync(_requests[i]);
        _image.EndAll();
        int okay = 0;
        for (int i = 0; i < Depth; i++)
        {
            if (_under[i].GetAwaiter().GetResult() == BlockStatus.Okay) okay++;
        }

        return okay;
    }

    private sealed class PassingHook : BlockHook
    {
        public override ValueTask<BlockStatus> HandleAsync(BlockRequest request, HookSeam next) =>
            next.HandleAsync(request);
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
            foreach (Gate gate in _gates) gate.Open();
            _count = 0;
        }

        public ValueTask DisposeAsync() => default;
    }

    private sealed class Gate : IValueTaskSource<BlockStatus>
    {
        private ManualResetValueTaskSourceCore<BlockStatus> _core;

        public ValueTask<BlockStatus> WaitAsync() => new(this, _core.Version);

        public void Open() => _core.SetResult(BlockStatus.Okay);

        public BlockStatus GetResult(short token)
        {
            BlockStatus status = _core.GetResult(token);
            _core.Reset();
            return status;
        }

        public ValueTaskSourceStatus GetStatus(short token) => _core.GetStatus(token);

        public void OnCompleted(
            Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
            _core.OnCompleted(continuation, state, token, flags);
    }
}
