using System.Runtime.CompilerServices;
using System.Threading.Tasks.Sources;
using BenchmarkDotNet.Attributes;
using Ublkback.Block;

namespace Ublkback.Benchmarks;

/// <summary>Requests that wait at the bottom of nested async methods, 128 at a time: the cost of the method builder.</summary>
[MemoryDiagnoser]
public class PipelineBenchmarks
{
    private const int Depth = 128;

    private readonly Gate[] _gates = [.. Enumerable.Range(0, Depth).Select(_ => new Gate())];
    private readonly ValueTask<BlockStatus>[] _under = new ValueTask<BlockStatus>[Depth];

    [Benchmark(Baseline = true, OperationsPerInvoke = Depth)]
    public int OneMethod() => Run(static gate => OneAsync(gate));

    [Benchmark(OperationsPerInvoke = Depth)]
    public int TwoMethods() => Run(static gate => TwoAsync(gate));

    [Benchmark(OperationsPerInvoke = Depth)]
    public int ThreeMethods() => Run(static gate => ThreeAsync(gate));

    private int Run(Func<Gate, ValueTask<BlockStatus>> start)
    {
        for (int i = 0; i < Depth; i++) _under[i] = start(_gates[i]);
        foreach (Gate gate in _gates) gate.Open();
        int okay = 0;
        for (int i = 0; i < Depth; i++)
        {
            if (_under[i].GetAwaiter().GetResult() == BlockStatus.Okay) okay++;
        }

        return okay;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private static async ValueTask<BlockStatus> ThreeAsync(Gate gate) => await TwoAsync(gate);

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private static async ValueTask<BlockStatus> TwoAsync(Gate gate) => await OneAsync(gate);

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private static async ValueTask<BlockStatus> OneAsync(Gate gate) => await gate.WaitAsync();

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

        public void OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
            _core.OnCompleted(continuation, state, token, flags);
    }
}
