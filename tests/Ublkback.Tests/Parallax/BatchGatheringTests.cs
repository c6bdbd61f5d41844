using NUnit.Framework;
using Ublkback.Linux.Workers;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Log;

namespace Ublkback.Tests.Parallax;

/// <summary>When the batches of a log on a slow storage are written.</summary>
public sealed class BatchGatheringTests
{
    private static readonly byte[] Block = new byte[VdiFormat.BlockSize];

    private readonly Turns _log = new();

    [Test]
    public void One_batch_is_under_way_unless_the_next_is_large()
    {
        BatchGathering gathering = new(_log);
        Assert.That(gathering.IsDue(Batch(1), underWay: 0), Is.True);
        Assert.That(gathering.IsDue(Batch(1), underWay: 1), Is.False);
        Assert.That(gathering.IsDue(Batch(64), underWay: 1), Is.True);
    }

    [Test]
    public async Task A_batch_waits_for_as_many_entries_as_the_last_one_had_but_not_for_long()
    {
        using Worker worker = new("test");
        BatchGathering gathering = new(_log);
        await worker.RunAsync(() =>
        {
            Assert.That(gathering.IsDue(Batch(16), 0), Is.True);
            Assert.That(gathering.IsDue(Batch(15), 0), Is.False);
            Assert.That(gathering.IsDue(Batch(16), 0), Is.True);
            Assert.That(gathering.IsDue(Batch(1), 0), Is.False);
        });
        await _log.Turn.WaitAsync(TimeSpan.FromSeconds(20)); // that of the first wait, or of the second
        await _log.Turn.WaitAsync(TimeSpan.FromSeconds(20));
        await worker.RunAsync(() => Assert.That(gathering.IsDue(Batch(1), 0), Is.True));
    }

    private static LogBatch Batch(int blocks)
    {
        LogBatch batch = new(() => { });
        batch.Begin(default, LogBatch.MaxBlocks);
        for (int i = 0; i < blocks; i++) batch.Add(LogEntryKind.Data, i, Block);
        return batch;
    }

    private sealed class Turns : IWork
    {
        public SemaphoreSlim Turn { get; } = new(0);

        public bool IsScheduled { get; set; }

        public void Run() => Turn.Release();
    }
}
