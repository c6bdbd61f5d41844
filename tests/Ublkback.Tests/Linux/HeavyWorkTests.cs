using NUnit.Framework;
using Ublkback.Backend.Rings;
using Ublkback.Linux.Workers;

namespace Ublkback.Tests.Linux;

/// <summary>What light work on a worker waits for while others keep the worker busy.</summary>
public sealed class HeavyWorkTests
{
    private const int HeavyCount = 10;
    private const int Rounds = 200;

    [Test]
    public async Task Light_work_waits_for_one_turn_of_heavy_work_at_most()
    {
        using Worker worker = new("test");
        Turns turns = new();
        HeavyWork[] heavy = [.. Enumerable.Range(0, HeavyCount).Select(_ => new HeavyWork(worker, turns))];
        LightWork light = new(worker, turns);
        await worker.RunAsync(() =>
        {
            foreach (HeavyWork work in heavy) worker.Schedule(work);
            worker.Schedule(light);
        });
        await turns.Over.WaitAsync(TimeSpan.FromSeconds(20));
        Assert.That(light.MostBetween, Is.EqualTo(1));
        const int Share = Rounds / HeavyCount;
        Assert.That(heavy.Select(work => work.Count), Is.All.InRange(Share - 1, Share + 1));
    }

    [TestCase(TurnWeight.LightRequests + 1, 0)]
    [TestCase(0, TurnWeight.LightBytes + 1)]
    public void A_ring_is_heavy_until_it_has_had_some_light_turns(int requests, int bytes)
    {
        TurnWeight weight = new();
        weight.OnTurn(TurnWeight.LightRequests, TurnWeight.LightBytes);
        Assert.That(weight.IsHeavy, Is.False);
        weight.OnTurn(requests, bytes);
        for (int turn = 0; turn < TurnWeight.LightTurns; turn++)
        {
            Assert.That(weight.IsHeavy, Is.True);
            weight.OnTurn(1, 4096);
        }

        Assert.That(weight.IsHeavy, Is.False);
    }

    private sealed class Turns
    {
        private readonly TaskCompletionSource _over = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public int OfHeavy { get; set; }

        public Task Over => _over.Task;

        public bool IsOver => Over.IsCompleted;

        public void End() => _over.SetResult();
    }

    private sealed class HeavyWork(Worker worker, Turns turns) : IWork
    {
        public bool IsScheduled { get; set; }

        public bool IsHeavy => true;

        public int Count { get; private set; }

        public void Run()
        {
            Count++;
            turns.OfHeavy++;
            if (!turns.IsOver) worker.Schedule(this);
        }
    }

    private sealed class LightWork(Worker worker, Turns turns) : IWork
    {
        private int _left = Rounds;
        private int _seen;

        public bool IsScheduled { get; set; }

        public int MostBetween { get; private set; }

        public void Run()
        {
            MostBetween = Math.Max(MostBetween, turns.OfHeavy - _seen);
            _seen = turns.OfHeavy;
            if (--_left > 0) worker.Schedule(this);
            else turns.End();
        }
    }
}
