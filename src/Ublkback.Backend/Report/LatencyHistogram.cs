using System.Diagnostics;
using System.Numerics;

namespace Ublkback.Backend.Report;

/// <summary>
/// Counts of durations in buckets an eighth of an octave wide, so a quantile is at most 1/8 too high. One thread
/// records; others may read at any time and see counts that are a moment old.
/// </summary>
[DataPath]
public sealed class LatencyHistogram
{
    private const int SubBucketBits = 3;
    private const int SubBuckets = 1 << SubBucketBits;
    private const int MaxExponent = 40; // 2^40 ns, 18 minutes: longer ones count there
    private const int BucketCount = (MaxExponent + 1) * SubBuckets;

    private readonly long[] _counts = new long[BucketCount];

    /// <summary>Records a duration in ticks of <see cref="Stopwatch"/>.</summary>
    public void Record(long stopwatchTicks) =>
        _counts[BucketOf((ulong)(stopwatchTicks * (1_000_000_000.0 / Stopwatch.Frequency)))]++;

    /// <summary>Adds the counts of another.</summary>
    public void Add(LatencyHistogram other)
    {
        for (int i = 0; i < BucketCount; i++) _counts[i] += other._counts[i];
    }

    /// <summary>Durations recorded.</summary>
    public long Count => _counts.Sum(); // off the path: a report

    /// <summary>
    /// The duration in microseconds that a fraction (0 to 1) of the durations does not exceed; 0 when there are none.
    /// </summary>
    public double QuantileMicroseconds(double fraction) // off the path: a report
    {
        long[] counts = [.. _counts];
        long wanted = (long)Math.Ceiling(counts.Sum() * fraction);
        if (wanted == 0) return 0;
        int bucket = 0;
        for (long seen = counts[0]; seen < wanted; seen += counts[bucket]) bucket++;
        return UpperEndOf(bucket) / 1000.0;
    }

    private static int BucketOf(ulong nanoseconds)
    {
        if (nanoseconds < SubBuckets) return (int)nanoseconds;
        int exponent = BitOperations.Log2(nanoseconds);
        if (exponent > MaxExponent) return BucketCount - 1;
        int fraction = (int)(nanoseconds >> (exponent - SubBucketBits)) & (SubBuckets - 1);
        return ((exponent - SubBucketBits + 1) << SubBucketBits) + fraction;
    }

    private static double UpperEndOf(int bucket)
    {
        if (bucket < SubBuckets) return bucket;
        int exponent = (bucket >> SubBucketBits) + SubBucketBits - 1;
        int fraction = bucket & (SubBuckets - 1);
        return Math.ScaleB(SubBuckets + fraction + 1, exponent - SubBucketBits) - 1;
    }
}
