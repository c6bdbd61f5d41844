using System.Diagnostics;
using Mono.Unix.Native;
using NUnit.Framework;
using Ublkback.Linux;

namespace Ublkback.Tests.Linux;

public sealed class WorkerTests
{
    private Worker _worker = null!;
    private string _path = null!;
    private FileDescriptor _file = null!;

    [SetUp]
    public void Start()
    {
        _worker = new Worker(0);
        _path = Path.GetTempFileName();
        _file = FileDescriptor.Open(_path, OpenFlags.O_RDWR);
    }

    [TearDown]
    public void Stop()
    {
        _worker.Dispose();
        _file.Dispose();
        File.Delete(_path);
    }

    [Test]
    public async Task Runs_posted_actions_in_order_from_many_threads()
    {
        List<int>[] seen = [[], [], [], []];
        await Task.WhenAll(Enumerable.Range(0, 4).Select(thread => Task.Run(() =>
        {
            for (int i = 0; i < 10_000; i++)
            {
                int number = i;
                _worker.Post(() => seen[thread].Add(number));
            }
        })));
        await _worker.RunAsync(() => { });

        foreach (List<int> numbers in seen) Assert.That(numbers, Is.EqualTo(Enumerable.Range(0, 10_000)));
    }

    [Test]
    public async Task Wakes_for_each_of_many_single_posts()
    {
        for (int i = 0; i < 5000; i++)
            await _worker.RunAsync(() => { }).WaitAsync(TimeSpan.FromSeconds(10));
    }

    [Test]
    public async Task Timed_work_has_its_turn_when_its_time_has_come()
    {
        long millisecond = Stopwatch.Frequency / 1000;
        long start = Stopwatch.GetTimestamp();
        List<int> order = [];
        TaskCompletionSource done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        await _worker.RunAsync(() =>
        {
            _worker.ScheduleAfter(new ActionWork(() => order.Add(3)), 15 * millisecond);
            _worker.ScheduleAfter(new ActionWork(() => order.Add(1)), 0);
            _worker.ScheduleAfter(new ActionWork(() => order.Add(2)), 5 * millisecond);
            _worker.ScheduleAfter(new ActionWork(done.SetResult), 30 * millisecond);
        });
        await done.Task.WaitAsync(TimeSpan.FromSeconds(10));

        Assert.That(Stopwatch.GetElapsedTime(start), Is.GreaterThanOrEqualTo(TimeSpan.FromMilliseconds(30)));
        Assert.That(order, Is.EqualTo([1, 2, 3]));
    }

    [Test]
    public async Task Writes_and_reads_back_at_depth()
    {
        int wrong = await OnWorker(async () =>
        {
            const int Count = 200;
            List<(Memory<byte> Buffer, ValueTask<int> Writing)> writes = [];
            for (int i = 0; i < Count; i++)
            {
                _worker.Buffers.TryRent(new IdleWork(), 4096, out Memory<byte> buffer);
                buffer.Span.Fill((byte)i);
                writes.Add((buffer, _worker.WriteAsync(_file, buffer, i * 4096L)));
            }

            int bad = 0;
            foreach ((Memory<byte> buffer, ValueTask<int> writing) in writes)
            {
                if (await writing != 4096) bad++;
                buffer.Span.Clear();
            }

            for (int i = 0; i < Count; i++)
            {
                Memory<byte> buffer = writes[i].Buffer;
                if (await _worker.ReadAsync(_file, buffer, i * 4096L) != 4096) bad++;
                if (buffer.Span.ContainsAnyExcept((byte)i)) bad++;
                _worker.Buffers.Return(buffer);
            }

            return bad;
        });

        Assert.That(wrong, Is.Zero);
        Assert.That(_worker.Buffers.FreeBytes, Is.EqualTo(Worker.BufferBytes));
    }

    [Test]
    public async Task Reports_errors_as_numbers()
    {
        using FileDescriptor readOnly = FileDescriptor.Open(_path, OpenFlags.O_RDONLY);
        int result = await OnWorker(async () =>
        {
            _worker.Buffers.TryRent(new IdleWork(), 512, out Memory<byte> buffer);
            return await _worker.WriteAsync(readOnly, buffer, 0);
        });

        Assert.That(result, Is.EqualTo(-9), "EBADF");
    }

    [Test]
    public async Task Joins_data_syncs_that_wait()
    {
        const int Callers = 50;
        int[] results = await OnWorker(async () =>
        {
            DataSyncQueue queue = new(_file);
            ValueTask<int>[] syncs = [.. Enumerable.Range(0, Callers).Select(_ => queue.SyncAsync())];
            int[] all = new int[Callers];
            for (int i = 0; i < Callers; i++) all[i] = await syncs[i];
            return all;
        });

        Assert.That(results, Is.All.Zero);
    }

    [Test]
    public async Task Who_waits_for_a_buffer_gets_it_before_those_who_come_later()
    {
        IdleWork large = new();
        IdleWork small = new();
        (bool First, bool Large, bool Small, bool LargeAgain, bool SmallAgain) seen = await OnWorker(() =>
        {
            const int Half = (int)Worker.BufferBytes / 2;
            bool first = _worker.Buffers.TryRent(small, Half, out Memory<byte> held);
            bool isLarge = _worker.Buffers.TryRent(large, (int)Worker.BufferBytes, out _);
            bool isSmall = _worker.Buffers.TryRent(small, 4096, out _); // there is room, but large is first
            _worker.Buffers.Return(held);
            bool largeAgain = _worker.Buffers.TryRent(large, (int)Worker.BufferBytes, out Memory<byte> all);
            _worker.Buffers.Return(all);
            bool smallAgain = _worker.Buffers.TryRent(small, 4096, out Memory<byte> page);
            _worker.Buffers.Return(page);
            return Task.FromResult((first, isLarge, isSmall, largeAgain, smallAgain));
        });

        Assert.That(seen, Is.EqualTo((true, false, false, true, true)));
        await _worker.RunAsync(() => { });
        Assert.That((large.Turns, small.Turns), Is.EqualTo((1, 1)), "each is woken when it is first");
    }

    // The continuations of I/O run on the worker, as on the data path.
    private async Task<T> OnWorker<T>(Func<Task<T>> body)
    {
        TaskCompletionSource<T> result = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _worker.Post(async () =>
        {
            try
            {
                result.SetResult(await body());
            }
            catch (Exception failure)
            {
                result.SetException(failure);
            }
        });
        return await result.Task.WaitAsync(TimeSpan.FromSeconds(30));
    }

    private sealed class ActionWork(Action action) : IWork
    {
        public bool IsScheduled { get; set; }

        public void Run() => action();
    }
}
