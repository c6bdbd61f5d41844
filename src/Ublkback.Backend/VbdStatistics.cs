using Ublkback.Block;

namespace Ublkback.Backend;

/// <summary>
/// What a vbd has done since the daemon found it. Written by the ring's worker; others may read at any time and see
/// figures that are a moment old.
/// </summary>
public sealed class VbdStatistics
{
    private readonly OperationStatistics[] _operations = [new(), new(), new()];

    /// <summary>Requests refused because the guest made them wrong.</summary>
    public long Refused { get; internal set; }

    /// <summary>Requests dequeued and not yet answered.</summary>
    public int InFlight { get; internal set; }

    /// <summary>The figures of one operation.</summary>
    public OperationStatistics Of(BlockOperation operation) => _operations[(int)operation];
}

/// <summary>The figures of one operation of a vbd.</summary>
public sealed class OperationStatistics
{
    /// <summary>Requests answered.</summary>
    public long Requests { get; private set; }

    /// <summary>Bytes of data of requests that succeeded.</summary>
    public long Bytes { get; private set; }

    /// <summary>Requests answered with an error.</summary>
    public long Errors { get; private set; }

    /// <summary>Time from dequeueing a request to writing its response.</summary>
    public LatencyHistogram Latency { get; } = new();

    internal void Record(bool succeeded, int bytes, long stopwatchTicks)
    {
        Requests++;
        if (succeeded) Bytes += bytes;
        else Errors++;
        Latency.Record(stopwatchTicks);
    }
}
