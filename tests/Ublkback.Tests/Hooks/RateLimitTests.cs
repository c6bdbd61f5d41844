using System.Diagnostics;
using NUnit.Framework;
using Ublkback.Hooks.Throttle;

namespace Ublkback.Tests.Hooks;

public sealed class RateLimitTests
{
    [TestCase(1, 100)]
    [TestCase(500, 5000)]
    [TestCase(100_000, 1_000_000)]
    public void The_rate_is_exact_over_time(long perSecond, int events)
    {
        RateLimit limit = new();
        limit.Set(perSecond, 0);
        long now = 1_000_000;
        for (int i = 0; i <= events; i++) now += limit.Take(1, now);

        Assert.That(
            (now - 1_000_000) / (double)Stopwatch.Frequency,
            Is.EqualTo((double)events / perSecond).Within(0.1).Percent);
    }

    [Test]
    public void A_pause_allows_a_burst_and_no_more()
    {
        const long PerSecond = 1000, Burst = 50;
        RateLimit limit = new();
        limit.Set(PerSecond, Burst);
        long now = Stopwatch.Frequency * 3600;
        int atOnce = 0;
        while (limit.Take(1, now) == 0) atOnce++;

        Assert.That(atOnce, Is.EqualTo(Burst + 1));
    }

    [Test]
    public void Many_small_costs_do_not_round_away()
    {
        RateLimit limit = new();
        limit.Set(3_000_000_000, 0);
        long now = 5;
        for (int i = 0; i < 300; i++) now += limit.Take(100_000_000, now);

        Assert.That((now - 5) / (double)Stopwatch.Frequency, Is.EqualTo(299 * 0.1 / 3).Within(0.2).Percent);
    }

    [Test]
    public void No_rate_is_no_limit()
    {
        RateLimit limit = new();
        limit.Set(0, 0);
        Assert.That(limit.Take(long.MaxValue / 2, 5), Is.Zero);
    }
}
