using System.Text.Json.Serialization;
using Ublkback.Block;

namespace Ublkback.Replay;

/// <summary>What <c>ublkback replay</c> found.</summary>
/// <param name="Operations">Counts and latencies.</param>
/// <param name="ReadsSame">Reads whose data has the checksum of the capture.</param>
/// <param name="ReadsDifferent">Reads whose data has another.</param>
/// <param name="ReadsNotCompared">Reads of which nobody can say what they must find.</param>
/// <param name="OtherStatus">Requests that ended otherwise than in the capture.</param>
/// <param name="LeftOut">Writes and discards that were not played.</param>
/// <param name="Lost">Requests that the capture lacks.</param>
/// <param name="IsDamaged">Whether a part of the capture makes no sense.</param>
/// <param name="CaptureSeconds">How long the capture took.</param>
/// <param name="ReplaySeconds">How long the replay took.</param>
/// <param name="BehindMs">By how much a request came later than in the capture, at most.</param>
/// <param name="Examples">Some of what was different.</param>
internal sealed record ReplayReport(
    IReadOnlyList<ReplayLatency> Operations, long ReadsSame, long ReadsDifferent, long ReadsNotCompared,
    long OtherStatus, long LeftOut,
    long Lost, bool IsDamaged, double CaptureSeconds, double ReplaySeconds, double BehindMs,
    IReadOnlyList<string> Examples)
{
    /// <summary>Whether all was as in the capture.</summary>
    [JsonIgnore]
    public bool IsSame => ReadsDifferent == 0 && OtherStatus == 0;
}

/// <summary>Latencies of an operation, in microseconds: in the capture, and now.</summary>
internal sealed record ReplayLatency(
    string Operation, long Count, double ThenP50Us, double ThenP99Us, double NowP50Us, double NowP99Us)
{
    /// <summary>Sums up latencies, of which there is at least one.</summary>
    public static ReplayLatency Of(BlockOperation operation, List<double> then, List<double> now)
    {
        then.Sort();
        now.Sort();
        return new ReplayLatency(
            operation.ToString().ToLowerInvariant(), then.Count, Quantile(then, 0.5), Quantile(then, 0.99),
            Quantile(now, 0.5), Quantile(now, 0.99));
    }

    private static double Quantile(List<double> sorted, double fraction) =>
        sorted[(int)((sorted.Count - 1) * fraction)];
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(ReplayReport))]
internal sealed partial class ReplayJson : JsonSerializerContext;
