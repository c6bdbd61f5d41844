using Ublkback.Backend.Xenbus;
using Ublkback.Block;

namespace Ublkback.Backend.Report;

/// <summary>
/// What a vbd has done since the daemon found it, over all its queues and connections. Each queue's figures are written
/// by the worker that serves it; others may read at any time and see figures that are a moment old.
/// </summary>
[DataPath]
public sealed class VbdStatistics
{
    private readonly QueueStatistics?[] _queues = new QueueStatistics?[FrontendParameters.MaxQueues];

    /// <summary>Requests refused because the guest made them wrong.</summary>
    public long Refused => Queues.Sum(queue => queue.Refused); // off the path: a report

    /// <summary>Requests dequeued and not yet answered.</summary>
    public int InFlight => Queues.Sum(queue => queue.InFlight); // off the path: a report

    /// <summary>Notifications of the guest that were listened to.</summary>
    public long Events => Queues.Sum(queue => queue.Events); // off the path: a report

    private IEnumerable<QueueStatistics> Queues => _queues.OfType<QueueStatistics>(); // off the path: a report

    /// <summary>The figures of one operation.</summary>
    public OperationStatistics Of(BlockOperation operation) // off the path: a report
    {
        OperationStatistics sum = new();
        foreach (QueueStatistics queue in Queues) sum.Add(queue.Of(operation));
        return sum;
    }

    /// <summary>The figures of one queue.</summary>
    internal QueueStatistics Queue(int number) => _queues[number] ??= new QueueStatistics(); // off the path: the start
}

/// <summary>What one queue of a vbd has done.</summary>
internal sealed class QueueStatistics
{
    private readonly OperationStatistics[] _operations =
        // off the path: once for each queue
        [.. Enum.GetValues<BlockOperation>().Select(_ => new OperationStatistics())];

    /// <summary>Requests refused because the guest made them wrong.</summary>
    public long Refused { get; internal set; }

    /// <summary>Requests dequeued and not yet answered.</summary>
    public int InFlight { get; internal set; }

    /// <summary>Notifications of the guest that were listened to.</summary>
    public long Events { get; internal set; }

    /// <summary>The figures of one operation.</summary>
    public OperationStatistics Of(BlockOperation operation) => _operations[(int)operation];
}

/// <summary>The figures of one operation.</summary>
public sealed class OperationStatistics
{
    /// <summary>Requests answered.</summary>
    public long Requests { get; private set; }

    /// <summary>Bytes of data, or freed, of requests that succeeded.</summary>
    public long Bytes { get; private set; }

    /// <summary>Requests answered with an error.</summary>
    public long Errors { get; private set; }

    /// <summary>Time from dequeueing a request to writing its response.</summary>
    public LatencyHistogram Latency { get; } = new();

    internal void Record(bool succeeded, long bytes, long stopwatchTicks)
    {
        Requests++;
        if (succeeded) Bytes += bytes;
        else Errors++;
        Latency.Record(stopwatchTicks);
    }

    internal void Add(OperationStatistics other)
    {
        Requests += other.Requests;
        Bytes += other.Bytes;
        Errors += other.Errors;
        Latency.Add(other.Latency);
    }
}
