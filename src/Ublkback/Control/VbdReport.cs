using System.Text.Json.Serialization;

namespace Ublkback.Control;

/// <summary>The daemon as a process.</summary>
/// <param name="AllocatedBytes">Managed memory allocated since its start, in bytes.</param>
/// <param name="Collections">Garbage collections since its start.</param>
/// <param name="Id">Process number.</param>
/// <param name="MappedPages">Pages of all guests that stay mapped.</param>
/// <param name="RingSlots">Slots of all connected rings.</param>
internal sealed record ProcessReport(
    long AllocatedBytes, int Collections, int Id, int MappedPages, int RingSlots);

/// <summary>A vbd as commands print it.</summary>
/// <param name="Kind"><c>vbd</c> or <c>vbd3</c>.</param>
/// <param name="Domid">The guest.</param>
/// <param name="Device">Name in the guest, such as xvda.</param>
/// <param name="DeviceId">Device number.</param>
/// <param name="Target">The target that is served.</param>
/// <param name="Access"><c>ro</c> or <c>rw</c>.</param>
/// <param name="State">The backend's xenbus state.</param>
/// <param name="FrontendState">The frontend's xenbus state.</param>
/// <param name="SizeBytes">Size of the image; null when it is not open.</param>
/// <param name="Queues">Number of queues; null when not connected.</param>
/// <param name="RingSlots">Slots of each queue's ring; null when not connected.</param>
/// <param name="PersistentPages">Pages of the guest that stay mapped; null when it does not keep them granted.</param>
/// <param name="InFlight">Requests in flight.</param>
/// <param name="OldestMs">Age of the oldest request in flight, in milliseconds; null when there is none.</param>
/// <param name="Events">Notifications of the guest that the daemon acted on.</param>
/// <param name="Refused">Malformed requests of the guest.</param>
/// <param name="Trouble">Why requests are not served as they should be; null when they are.</param>
/// <param name="Operations">Figures by operation; null in a list.</param>
internal sealed record VbdReport(
    string Kind, int Domid, string Device, int DeviceId, string Target, string Access, string State,
    string FrontendState, ulong? SizeBytes, int? Queues, int? RingSlots, int? PersistentPages, int InFlight,
    double? OldestMs, long Events, long Refused, string? Trouble, IReadOnlyList<OperationReport>? Operations);

/// <summary>The figures of one operation. Latency is from dequeueing to the response, in microseconds.</summary>
internal sealed record OperationReport(
    string Operation, long Requests, long Bytes, long Errors, double P50Us, double P99Us, double P999Us);

/// <summary>How commands print vbds with <c>--json</c>.</summary>
[JsonSourceGenerationOptions(
    WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(IReadOnlyList<VbdReport>))]
internal sealed partial class ReportJson : JsonSerializerContext;
