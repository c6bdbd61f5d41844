using System.Runtime.CompilerServices;
using System.Threading.Tasks.Sources;
using NUnit.Framework;
using Ublkback.Block;

namespace Ublkback.Tests.Block;

public sealed class RecyclingMethodBuilderTests
{
    private const int Depth = 128;

    [Test]
    public void Allocates_nothing_in_the_steady_state_at_depth_128_through_two_methods()
    {
        Gate[] gates = [.. Enumerable.Range(0, Depth).Select(_ => new Gate())];
        Collector collector = new();
        for (int warm = 0; warm < 100; warm++) RunAll(gates, collector);

        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int round = 0; round < 1000; round++) RunAll(gates, collector);
        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;

        Assert.That(allocated, Is.Zero);
        Assert.That(collector.Sum, Is.EqualTo(1100L * Depth * 42));
    }

    [Test]
    public void Passes_exceptions_on()
    {
        Gate gate = new();
        ValueTaskAwaiter<int> awaiter = FailAfter(gate).GetAwaiter();

        gate.Open(1);

        Assert.That(() => awaiter.GetResult(), Throws.InvalidOperationException.With.Message.EqualTo("1"));
    }

    private static void RunAll(Gate[] gates, Collector collector)
    {
        for (int i = 0; i < gates.Length; i++) collector.Start(i, Outer(gates[i]));
        foreach (Gate gate in gates) gate.Open(40);
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private static async ValueTask<int> Outer(Gate gate) => await Inner(gate) + 1;

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private static async ValueTask<int> Inner(Gate gate) => await gate.WaitAsync() + 1;

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private static async ValueTask<int> FailAfter(Gate gate) =>
        throw new InvalidOperationException($"{await gate.WaitAsync()}");

    private sealed class Gate : IValueTaskSource<int>
    {
        private ManualResetValueTaskSourceCore<int> _core;

        public ValueTask<int> WaitAsync() => new(this, _core.Version);

        public void Open(int value) => _core.SetResult(value);

        public ValueTaskSourceStatus GetStatus(short token) => _core.GetStatus(token);

        public void OnCompleted(
            Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
            _core.OnCompleted(continuation, state, token, ValueTaskSourceOnCompletedFlags.None);

        public int GetResult(short token)
        {
            int result = _core.GetResult(token);
            _core.Reset();
            return result;
        }
    }

    private sealed class Collector
    {
        private readonly ValueTaskAwaiter<int>[] _awaiters = new ValueTaskAwaiter<int>[Depth];
        private readonly Action[] _continuations;

        public Collector() => _continuations =
            [.. Enumerable.Range(0, Depth).Select(i => (Action)(() => Sum += _awaiters[i].GetResult()))];

        public long Sum { get; private set; }

        public void Start(int index, ValueTask<int> task)
        {
            _awaiters[index] = task.GetAwaiter();
            _awaiters[index].UnsafeOnCompleted(_continuations[index]);
        }
    }
}
