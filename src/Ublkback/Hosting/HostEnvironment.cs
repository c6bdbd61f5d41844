using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.Xen;
using Ublkback.XenStore;

namespace Ublkback.Hosting;

/// <summary>
/// Where the daemon and the commands find a Xen host: this machine's, or an emulated one in a directory.
/// </summary>
internal sealed record HostEnvironment
{
    private const string Real = "real";

    private HostEnvironment(HostLayout? emulated) => Emulated = emulated;

    /// <summary>The emulated host; null for the real one.</summary>
    public HostLayout? Emulated { get; }

    /// <summary>Where the daemon keeps its socket, lock and notes.</summary>
    public string RunDirectory => Emulated?.RunDirectory ?? "/run/ublkback";

    /// <summary>The daemon's control socket.</summary>
    public string ControlSocket => Path.Combine(RunDirectory, "control.sock");

    /// <summary>What the daemon has in hand, for the next one.</summary>
    public string JournalDirectory => Path.Combine(RunDirectory, "journal");

    /// <summary>Where QEMU finds the disks of HVM guests.</summary>
    public string QemuFolder => Path.Combine(RunDirectory, "qemu");

    /// <summary>Where plugins are.</summary>
    public string PluginFolder => Emulated?.PluginFolder ?? "/usr/lib/ublkback/plugins";

    /// <summary>Where sysfs is mounted.</summary>
    public string Sysfs => Emulated?.Sysfs ?? "/sys";

    /// <summary>Reads the value of <c>--host</c>.</summary>
    /// <exception cref="CommandException">There is no emulated host in the directory.</exception>
    public static HostEnvironment Parse(string text)
    {
        if (text == Real) return new HostEnvironment(emulated: null);
        HostLayout layout = new(Path.GetFullPath(text));
        return File.Exists(layout.StoreSocket)
            ? new HostEnvironment(layout)
            : throw new CommandException(
                $"there is no emulated host in {text}", $"start one with 'ublkback xen-host {text}'");
    }

    /// <summary>The default of <c>--host</c>: what UBLKBACK_HOST says, else the real one.</summary>
    public static string Default =>
        Environment.GetEnvironmentVariable("UBLKBACK_HOST") is { Length: > 0 } host ? host : Real;

    /// <summary>Connects to the store.</summary>
    /// <exception cref="XenStoreException">There is none.</exception>
    public XenStoreClient OpenStore() =>
        XenStoreClient.Open(Emulated is null ? XenStoreTransport.Find() : new XenStoreTransport(Emulated.StoreSocket));

    /// <summary>Opens the devices of the hypervisor.</summary>
    public IHypervisor OpenHypervisor(ushort ownDomid) =>
        Emulated is null ? new DeviceHypervisor() : new EmulatedHypervisor(Emulated, ownDomid);
}
