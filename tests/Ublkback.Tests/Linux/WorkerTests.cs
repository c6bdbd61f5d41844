using System.Diagnostics;
using System.IO.Pipes;
using System.Threading.Channels;
using Mono.Unix.Native;
using NUnit.Framework;
using Ublkback.Linux.Files;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;

namespace Ublkback.Tests.Linux;

public sealed class WorkerTests
{
    private Worker _worker = null!;
    private string _path = null!;
    private FileDescriptor _file = null!;

    [SetUp]
    public void Start()
    {
        _worker = new Worker("test");
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
    public async Task What_awaits_on_a_worker_goes_on_there()
    {
        TaskCompletionSource<bool> cameBack = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _worker.Post(async () =>
        {
            await Task.Run(() => { });
            cameBack.SetResult(_worker.IsCurrent);
        });
        Assert.That(await cameBack.Task.WaitAsync(TimeSpan.FromSeconds(10)), Is.True);
        Assert.That(_worker.IsCurrent, Is.False);
    }

    [Test]
    public async Task A_watched_descriptor_is_told_each_time_it_can_be_read_until_the_watch_ends()
    {
        using AnonymousPipeServerStream pipe = new(PipeDirection.Out);
        using AnonymousPipeClientStream reader = new(PipeDirection.In, pipe.ClientSafePipeHandle);
        Channel<int> seen = Channel.CreateUnbounded<int>();
        IDisposable? watch = null;
        int descriptor = (int)reader.SafePipeHandle.DangerousGetHandle();
        await _worker.RunAsync(() => watch = _worker.Watch(descriptor, () => seen.Writer.TryWrite(reader.ReadByte())));
        for (byte i = 1; i <= 3; i++)
        {
            pipe.WriteByte(i);
            Assert.That(await seen.Reader.ReadAsync().AsTask().WaitAsync(TimeSpan.FromSeconds(10)), Is.EqualTo(i));
        }

        await _worker.RunAsync(() => watch!.Dispose());
        pipe.WriteByte(4);
        await _worker.RunAsync(() => { });
        Assert.That(reader.ReadByte(), Is.EqualTo(4), "nobody else has read it");
    }

    [Test]
    public async Task What_others_post_does_not_end_a_worker_that_takes_their_failures()
    {
        TaskCompletionSource<string> failed = new(TaskCreationOptions.RunContinuationsAsynchronously);
        using Worker worker = new("test", failure => failed.SetResult(failure.Message));
        worker.Post(() => throw new InvalidOperationException("oops"));
        Assert.That(await failed.Task.WaitAsync(TimeSpan.FromSeconds(10)), Is.EqualTo("oops"));
        await worker.RunAsync(() => { }).WaitAsync(TimeSpan.FromSeconds(10));
    }

    [Test]
    public async Task Tells_how_long_a_turn_takes()
    {
        using ManualResetEventSlim gate = new();
        _worker.Post(gate.Wait);
        while (_worker.Busy < TimeSpan.FromMilliseconds(20)) await Task.Yield();
        gate.Set();
        await _worker.RunAsync(() => { });
        while (_worker.Busy != TimeSpan.Zero) await Task.Yield();
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
                writes.Add((buffer, _worker.Operations.WriteAsync(_file, buffer, i * 4096L)));
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
                if (await _worker.Operations.ReadAsync(_file, buffer, i * 4096L) != 4096) bad++;
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
            return await _worker.Operations.WriteAsync(readOnly, buffer, 0);
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
    private Task<T> OnWorker<T>(Func<Task<T>> body) => _worker.InvokeAsync(body).WaitAsync(TimeSpan.FromSeconds(30));

    private sealed class ActionWork(Action action) : IWork
    {
        public bool IsScheduled { get; set; }

        public void Run() => action();
    }
}
