using System.Text.Json.Serialization;

namespace Ublkback.Control;

// The control socket speaks JSON, one line a message: a request, then its reply, then the daemon closes.

/// <summary>What a command asks of the daemon.</summary>
/// <param name="Command"><c>list</c>, <c>stats</c>, <c>resize</c>, <c>resume</c>, <c>change</c> or
/// <c>hotplug-add</c>.</param>
/// <param name="XenbusPath">For hotplug: which device.</param>
/// <param name="Domid">For resize, resume and change: whose disks; null means all guests'.</param>
/// <param name="Device">For resize, resume and change: which of them, such as xvda; null means all.</param>
/// <param name="Hook">For change: the hook, as in a target, with what is to be changed.</param>
/// <param name="SizeBytes">For resize: the size that the disk is to have; null when it is to be found out.</param>
internal sealed record ControlRequest(
    string Command, string? XenbusPath = null, int? Domid = null, string? Device = null, string? Hook = null,
    long? SizeBytes = null);

/// <summary>What the daemon answers.</summary>
/// <param name="Error">Why it could not be done; null when it could.</param>
/// <param name="Vbds">The vbds, for list, stats, resize, resume and change.</param>
/// <param name="Process">The daemon itself, for list and stats.</param>
internal sealed record ControlReply(
    string? Error, IReadOnlyList<VbdReport>? Vbds = null, ProcessReport? Process = null);

/// <summary>The daemon as a process.</summary>
/// <param name="AllocatedBytes">Managed memory allocated since its start, in bytes.</param>
/// <param name="Collections">Garbage collections since its start.</param>
/// <param name="Id">Process number.</param>
internal sealed record ProcessReport(long AllocatedBytes, int Collections, int Id);

/// <summary>A vbd as commands print it.</summary>
/// <param name="Kind"><c>vbd</c> or <c>vbd3</c>.</param>
/// <param name="Domid">The guest.</param>
/// <param name="Device">Name in the guest, such as xvda.</param>
/// <param name="DeviceId">Device number.</param>
/// <param name="Target">What is served.</param>
/// <param name="Access"><c>ro</c> or <c>rw</c>.</param>
/// <param name="State">Our xenbus state.</param>
/// <param name="FrontendState">The frontend's xenbus state.</param>
/// <param name="SizeBytes">Size of the image; null when it is not open.</param>
/// <param name="Queues">Number of queues; null when not connected.</param>
/// <param name="RingSlots">Slots of each queue's ring; null when not connected.</param>
/// <param name="PersistentPages">Pages of the guest that stay mapped; null when it does not keep them granted.</param>
/// <param name="InFlight">Requests being served.</param>
/// <param name="OldestMs">How long the oldest of them has been so, in milliseconds; null when there is none.</param>
/// <param name="Events">Notifications of the guest that were listened to.</param>
/// <param name="Refused">Requests that the guest made wrong.</param>
/// <param name="Trouble">Why requests are not served as they should be; null when they are.</param>
/// <param name="Operations">Figures by operation; null in a list.</param>
internal sealed record VbdReport(
    string Kind, int Domid, string Device, int DeviceId, string Target, string Access, string State,
    string FrontendState, ulong? SizeBytes, int? Queues, int? RingSlots, int? PersistentPages, int InFlight,
    double? OldestMs,
    long Events, long Refused, string? Trouble, IReadOnlyList<OperationReport>? Operations);

/// <summary>The figures of one operation. Latency is from dequeueing to the response, in microseconds.</summary>
internal sealed record OperationReport(
    string Operation, long Requests, long Bytes, long Errors, double P50Us, double P99Us, double P999Us);

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(ControlRequest))]
[JsonSerializable(typeof(ControlReply))]
internal sealed partial class ControlJson : JsonSerializerContext;

[JsonSourceGenerationOptions(
    WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(IReadOnlyList<VbdReport>))]
internal sealed partial class ReportJson : JsonSerializerContext;
