using Ublkback.Backend.Xenbus;
using Ublkback.Block;

namespace Ublkback.Backend.Report;

/// <summary>A vbd as the commands show it.</summary>
/// <param name="Address">Which it is.</param>
/// <param name="Target">What it serves.</param>
/// <param name="IsReadOnly">Whether the guest may not write.</param>
/// <param name="Backend">Our xenbus state.</param>
/// <param name="Frontend">The frontend's xenbus state.</param>
/// <param name="Queues">Number of queues; null when not connected.</param>
/// <param name="Slots">Slots of each queue's ring; null when not connected.</param>
/// <param name="PersistentPages">Pages kept mapped; null when the frontend does not keep them granted.</param>
/// <param name="Geometry">The image's shape; null when it is not open.</param>
/// <param name="Trouble">Why the guest's requests are not served as they should be; null when they are.</param>
/// <param name="OldestAge">Age of the oldest request in flight; null if there is none.</param>
/// <param name="Statistics">What it has done.</param>
public sealed record VbdSummary(
    VbdAddress Address, string Target, bool IsReadOnly, XenbusState? Backend, XenbusState? Frontend, int? Queues,
    int? Slots, int? PersistentPages, ImageGeometry? Geometry, string? Trouble,
    TimeSpan? OldestAge, VbdStatistics Statistics);
