using Ublkback.Linux.Kernel;

namespace Ublkback.Xen;

/// <summary>
/// What a backend needs of the hypervisor: other domains' memory and event channels. Implemented by the devices in
/// /dev/xen and by the emulated host. Any thread.
/// </summary>
public interface IHypervisor : IDisposable
{
    /// <summary>Maps granted pages side by side, writable. May block, so not on a worker.</summary>
    /// <exception cref="LinuxException">A reference is bad or no mapping is to be had.</exception>
    IGrantMapping MapGrants(ushort domid, ReadOnlySpan<uint> references);

    /// <summary>
    /// Copies between granted pages and our memory, the whole batch in one call. Each element ends with its own status.
    /// </summary>
    /// <exception cref="LinuxException">The call as a whole failed; no status is valid.</exception>
    void CopyGrants(Span<GrantCopy> batch);

    /// <summary>Binds to a port that another domain allocated for us. The port is pending at once.</summary>
    /// <exception cref="LinuxException">There is no such port, or somebody is bound to it (EINVAL).</exception>
    IEventChannel BindEventChannel(ushort domid, uint remotePort);
}

/// <summary>Mapped pages of another domain; disposing unmaps them.</summary>
public interface IGrantMapping : IDisposable
{
    /// <summary>Address of the first page.</summary>
    nint Address { get; }
}

/// <summary>Our end of an event channel; disposing unbinds it.</summary>
public interface IEventChannel : IDisposable
{
    /// <summary>
    /// A non-blocking descriptor: reading up to <see cref="ReadLength"/> bytes takes the event.
    /// </summary>
    FileDescriptor Descriptor { get; }

    /// <summary>Bytes to read at a time.</summary>
    int ReadLength { get; }

    /// <summary>
    /// Whether an event masks its port until the four bytes that were read are written back. That is the end of the
    /// interrupt, so it is done after the ring was drained.
    /// </summary>
    bool MustUnmask { get; }

    /// <summary>Tells the other domain. Never blocks.</summary>
    void Notify();
}
