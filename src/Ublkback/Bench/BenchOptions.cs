using System.Text.Json.Serialization;

namespace Ublkback.Bench;

/// <summary>What <c>ublkback bench</c> measures.</summary>
/// <param name="Image">Path of the image, or a target.</param>
/// <param name="Rw"><c>randread</c>, <c>randwrite</c>, <c>read</c> or <c>write</c>.</param>
/// <param name="BlockSize">Bytes of a request.</param>
/// <param name="Depth">Requests in flight for each disk.</param>
/// <param name="Queues">Queues of each disk.</param>
/// <param name="Vbds">Number of disks.</param>
/// <param name="Time">How long.</param>
/// <param name="Hooks">Hooks over the image, as in a target, each with its plus; empty for none.</param>
/// <param name="IsPersistent">Whether the frontend keeps its pages granted.</param>
internal sealed record BenchOptions(
    string Image, string Rw, int BlockSize, int Depth, int Queues, int Vbds, TimeSpan Time, string Hooks,
    bool IsPersistent);

/// <summary>What came out. Times are from putting a request into the ring to taking its answer.</summary>
/// <param name="Iops">Requests a second, all disks.</param>
/// <param name="MeanUs">Mean time of a request in microseconds.</param>
/// <param name="P50Us">Median.</param>
/// <param name="P99Us">The time that 99 of 100 requests do not exceed.</param>
/// <param name="P999Us">The time that 999 of 1000 requests do not exceed.</param>
/// <param name="CpuUsPerRequest">Processor time of frontend, daemon and host together in microseconds.</param>
/// <param name="DaemonCpuUsPerRequest">That of the daemon alone.</param>
/// <param name="AllocatedBytesPerRequest">Managed memory that the daemon allocated.</param>
/// <param name="Collections">Garbage collections of the daemon.</param>
/// <param name="SlowestVbdIops">Requests a second of the slowest disk.</param>
/// <param name="DaemonResidentBytes">The daemon's resident memory, without what it shares with guests.</param>
/// <param name="DaemonThreads">The daemon's threads.</param>
internal sealed record BenchResult(
    double Iops, double MeanUs, double P50Us, double P99Us, double P999Us, double CpuUsPerRequest,
    double DaemonCpuUsPerRequest, double AllocatedBytesPerRequest, int Collections, double SlowestVbdIops,
    long DaemonResidentBytes, int DaemonThreads);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(BenchResult))]
internal sealed partial class BenchJson : JsonSerializerContext;
