using System.Globalization;

namespace Ublkback.EmulatedHost.Hypervisor;

/// <summary>
/// Where things are in the directory that is an emulated host. Any process of the same user may use them.
/// </summary>
/// <param name="Root">The directory.</param>
public sealed record HostLayout(string Root)
{
    /// <summary>Dom0's socket of the store.</summary>
    public string StoreSocket => Path.Combine(Root, "xenstored", "socket");

    /// <summary>Stands for sysfs; empty unless a test puts something there.</summary>
    public string Sysfs => Path.Combine(Root, "sys");

    /// <summary>Stands for /run/ublkback.</summary>
    public string RunDirectory => Path.Combine(Root, "run");

    /// <summary>Stands for /usr/lib/ublkback/plugins.</summary>
    public string PluginFolder => Path.Combine(Root, "plugins");

    /// <summary>What a domain has: memory, ports, a socket of the store.</summary>
    public string DomainDirectory(int domid) =>
        Path.Combine(Root, "domains", domid.ToString(CultureInfo.InvariantCulture));

    /// <summary>The store as a domain other than dom0 reaches it.</summary>
    public string DomainSocket(int domid) => Path.Combine(DomainDirectory(domid), "socket");

    /// <summary>A link to the domain's memory, a file whose size nobody can change.</summary>
    public string DomainMemory(int domid) => Path.Combine(DomainDirectory(domid), "memory");

    /// <summary>The domain's event channels: two pipes each.</summary>
    public string PortDirectory(int domid) => Path.Combine(DomainDirectory(domid), "ports");

    /// <summary>The pipe that carries a port's events to the domain that allocated the port.</summary>
    public string PipeToOwner(int domid, uint port) =>
        Path.Combine(PortDirectory(domid), port.ToString(CultureInfo.InvariantCulture) + ".to-owner");

    /// <summary>The pipe that carries events to the domain that binds to the port.</summary>
    public string PipeToPeer(int domid, uint port) =>
        Path.Combine(PortDirectory(domid), port.ToString(CultureInfo.InvariantCulture) + ".to-peer");
}
