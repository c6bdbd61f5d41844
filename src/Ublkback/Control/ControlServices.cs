using Ublkback.Backend.Connections;
using Ublkback.Backend.Vbds;

namespace Ublkback.Control;

/// <summary>The parts of the daemon that answer requests.</summary>
/// <param name="Directory">All vbds.</param>
/// <param name="Hotplug">Checks devices for the hotplug script.</param>
/// <param name="Backend">The services that all vbds share, for their accounts.</param>
internal sealed record ControlServices(VbdDirectory Directory, Hotplug Hotplug, BackendServices Backend)
{
    /// <summary>Returns the vbds of a guest or of all, and of a device or of all.</summary>
    public IEnumerable<Vbd> Choose(int? domid, string? device) => Directory.Vbds.Where(vbd =>
        (domid ?? vbd.Address.Domid) == vbd.Address.Domid
        && (device ?? vbd.Address.DeviceName) == vbd.Address.DeviceName);

    /// <summary>Reports the vbds that a command was carried out on.</summary>
    public VbdsReply Report(int? domid, string? device) =>
        new([.. Choose(domid, device).Select(vbd => VbdReports.Make(vbd, withOperations: false))]);

    /// <summary>Reports all vbds and the daemon itself.</summary>
    public DaemonReply ReportAll(bool withOperations) => new(
        [.. Directory.Vbds.Select(vbd => VbdReports.Make(vbd, withOperations))],
        new ProcessReport(
            GC.GetTotalAllocatedBytes(), GC.CollectionCount(0), Environment.ProcessId, Backend.Grants.Taken,
            Backend.Requests.Taken));
}
