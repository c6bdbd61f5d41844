using System.Diagnostics;
using NUnit.Framework;
using Ublkback.Backend.Report;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;

namespace Ublkback.HostTests.Fixtures;

/// <summary>
/// Reads, writes, flushes and discards by many tasks, each on blocks of its own, that check every status and every
/// byte.
/// </summary>
internal sealed class VerifyingLoad
{
    private const int Tasks = 24;
    private const int BlocksPerTask = 4;

    /// <summary>Bytes of a block: more than a classic request carries.</summary>
    private const int BlockSize = 128 << 10;

    private readonly Blkfront _disk;
    private readonly CancellationTokenSource _stopping = new();
    private readonly Task[] _tasks;
    private readonly Lock _latencyLock = new();
    private LatencyHistogram _latency = new();
    private long _requests;
    private long _lastAnswer = Stopwatch.GetTimestamp();
    private long _longestPause;

    public VerifyingLoad(Blkfront disk)
    {
        _disk = disk;
        _tasks = [.. Enumerable.Range(0, Tasks).Select(task => Task.Run(() => RunAsync(task)))];
    }

    /// <summary>Size of the disk that it needs, in bytes.</summary>
    public static long DiskSize => (long)Tasks * BlocksPerTask * BlockSize;

    /// <summary>Transfers, flushes and discards that were answered.</summary>
    public long Requests => Interlocked.Read(ref _requests);

    /// <summary>The longest time without any answer.</summary>
    public TimeSpan LongestPause => Stopwatch.GetElapsedTime(0, Interlocked.Read(ref _longestPause));

    /// <summary>The 99th percentile of the time to an answer since the last call, in microseconds.</summary>
    public double TakeP99()
    {
        lock (_latencyLock)
        {
            double p99 = _latency.QuantileMicroseconds(0.99);
            _latency = new LatencyHistogram();
            return p99;
        }
    }

    /// <summary>Ends when some more requests were answered.</summary>
    public async Task ProgressAsync(int requests, TimeSpan limit)
    {
        long target = Requests + requests;
        long start = Stopwatch.GetTimestamp();
        while (Requests < target)
        {
            await Task.Delay(1); // a look at a counter that other threads change at full speed
            Assert.That(Stopwatch.GetElapsedTime(start), Is.LessThan(limit), "the guest's requests are not answered");
            Task? ended = _tasks.FirstOrDefault(task => task.IsCompleted);
            if (ended is not null) await ended;
        }
    }

    /// <summary>Ends the load; fails when anything was wrong.</summary>
    public async Task StopAsync(TimeSpan limit)
    {
        await _stopping.CancelAsync();
        await Task.WhenAll(_tasks).WaitAsync(limit);
    }

    private async Task RunAsync(int task)
    {
        Random random = new(task);
        byte[]?[] expected = new byte[BlocksPerTask][];
        byte[] read = new byte[BlockSize];
        while (!_stopping.IsCancellationRequested)
        {
            int block = random.Next(BlocksPerTask);
            ulong sector = (ulong)(((task * BlocksPerTask) + block) * (BlockSize / 512));
            int offset = random.Next(BlockSize / 4096) * 4096;
            int length = random.Next(3) == 0 ? BlockSize - offset : 4096;
            byte[] content = expected[block] ??= new byte[BlockSize];
            BlkifStatus status;
            long start = Stopwatch.GetTimestamp();
            switch (random.Next(16))
            {
                case < 7:
                    random.NextBytes(content.AsSpan(offset, length));
                    status = await _disk.WriteAsync(sector + (ulong)(offset / 512), content.AsMemory(offset, length));
                    break;
                case < 14:
                    status = await _disk.ReadAsync(sector + (ulong)(offset / 512), read.AsMemory(0, length));
                    Assert.That(
                        read.AsSpan(0, length).SequenceEqual(content.AsSpan(offset, length)), Is.True,
                        $"task {task}, block {block}, {length} bytes at {offset}");
                    break;
                case 14:
                    content.AsSpan(offset, length).Clear();
                    status = await _disk.DiscardAsync(sector + (ulong)(offset / 512), (ulong)(length / 512));
                    break;
                default:
                    status = await _disk.FlushAsync();
                    break;
            }

            Assert.That(status, Is.EqualTo(BlkifStatus.Okay));
            long now = Stopwatch.GetTimestamp();
            lock (_latencyLock) _latency.Record(now - start);
            long pause = now - Interlocked.Exchange(ref _lastAnswer, now);
            if (pause > Interlocked.Read(ref _longestPause)) Interlocked.Exchange(ref _longestPause, pause);
            Interlocked.Increment(ref _requests);
        }
    }
}
