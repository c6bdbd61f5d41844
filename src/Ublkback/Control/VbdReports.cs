using Ublkback.Backend.Report;
using Ublkback.Backend.Vbds;
using Ublkback.Backend.Xenbus;
using Ublkback.Block;

namespace Ublkback.Control;

/// <summary>Makes reports of vbds.</summary>
internal static class VbdReports
{
    public static VbdReport Make(Vbd vbd, bool withOperations)
    {
        VbdSummary summary = vbd.Summarize();
        return new VbdReport(
            summary.Address.Kind, summary.Address.Domid, summary.Address.DeviceName, summary.Address.DeviceId,
            summary.Target, summary.IsReadOnly ? "ro" : "rw", Name(summary.Backend), Name(summary.Frontend),
            summary.Geometry?.SectorCount * BlockRequest.SectorSize, summary.Queues, summary.Slots,
            summary.PersistentPages, summary.Statistics.InFlight, summary.OldestAge?.TotalMilliseconds,
            summary.Statistics.Events, summary.Statistics.Refused, summary.Trouble,
            withOperations
                ? [.. Enum.GetValues<BlockOperation>()
                    .Select(operation => Make(operation, summary.Statistics.Of(operation)))]
                : null);
    }

    private static string Name(XenbusState? state) => state?.ToString() ?? "gone";

    private static OperationReport Make(BlockOperation operation, OperationStatistics figures) => new(
        operation.ToString(), figures.Requests, figures.Bytes, figures.Errors,
        figures.Latency.QuantileMicroseconds(0.5), figures.Latency.QuantileMicroseconds(0.99),
        figures.Latency.QuantileMicroseconds(0.999));
}
