using Ublkback.Block;
using Ublkback.Hooks.Trace;

namespace Ublkback.Replay;

/// <summary>What came out of playing a capture. One thread.</summary>
internal sealed class ReplayTally
{
    private const int MostExamples = 10;

    private readonly Dictionary<BlockOperation, (List<double> Then, List<double> Now)> _latencies = [];
    private readonly List<string> _examples = [];

    /// <summary>Requests that would have changed the target, and were left out.</summary>
    public long LeftOut { get; set; }

    /// <summary>How long it took.</summary>
    public TimeSpan Took { get; set; }

    private long Same { get; set; }

    private long Different { get; set; }

    private long NotCompared { get; set; }

    private long OtherStatus { get; set; }

    private TimeSpan MostBehind { get; set; }

    /// <summary>A request came later than it should.</summary>
    public void OnBehind(TimeSpan by) => MostBehind = by > MostBehind ? by : MostBehind;

    /// <summary>A request has ended.</summary>
    public void OnEnded(in TraceRecord record, BlockStatus status, TimeSpan latency)
    {
        if (!_latencies.TryGetValue(record.Operation, out (List<double> Then, List<double> Now) lists))
            _latencies[record.Operation] = lists = ([], []);
        lists.Then.Add(record.LatencyMicroseconds);
        lists.Now.Add(latency.TotalMicroseconds);
        if (status == record.Status) return;
        OtherStatus++;
        AddExample($"{record.Operation} of {record.SectorCount} sectors at {record.Sector} ended {record.Status} "
            + $"then, {status} now");
    }

    /// <summary>A read has brought data.</summary>
    public void OnRead(in TraceRecord record, bool isComparable, uint checksum)
    {
        if (!isComparable)
        {
            NotCompared++;
            return;
        }

        if (checksum == record.Checksum)
        {
            Same++;
            return;
        }

        Different++;
        AddExample($"{record.SectorCount} sectors at {record.Sector} had checksum {record.Checksum:x8} then, have "
            + $"{checksum:x8} now");
    }

    /// <summary>The figures.</summary>
    public ReplayReport Report(TraceCapture capture, TimeSpan length) => new(
        [.. _latencies.OrderBy(pair => pair.Key)
            .Select(pair => ReplayLatency.Of(pair.Key, pair.Value.Then, pair.Value.Now))],
        Same, Different, NotCompared, OtherStatus, LeftOut, capture.Lost, capture.IsDamaged, length.TotalSeconds,
        Took.TotalSeconds,
        MostBehind.TotalMilliseconds, _examples);

    private void AddExample(string what)
    {
        if (_examples.Count < MostExamples) _examples.Add(what);
    }
}
