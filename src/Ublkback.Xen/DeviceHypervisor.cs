using Mono.Unix.Native;
using Ublkback.Linux.Kernel;

namespace Ublkback.Xen;

/// <summary>The hypervisor through /dev/xen/gntdev and /dev/xen/evtchn.</summary>
[DataPath]
public sealed unsafe class DeviceHypervisor : IHypervisor
{
    /// <summary>The grant device.</summary>
    public const string GrantDevice = "/dev/xen/gntdev";

    /// <summary>The event channel device.</summary>
    public const string EventDevice = "/dev/xen/evtchn";

    private readonly FileDescriptor _grants = FileDescriptor.Open(GrantDevice, OpenFlags.O_RDWR);

    /// <inheritdoc/>
    // off the path: the start, or a helper thread
    public IGrantMapping MapGrants(ushort domid, ReadOnlySpan<uint> references) =>
        new DeviceGrantMapping(_grants, domid, references);

    /// <inheritdoc/>
    public void CopyGrants(Span<GrantCopy> batch)
    {
        fixed (GrantCopy* segments = batch)
        {
            GrantIoctl.Copy argument = new() { Count = (uint)batch.Length, Segments = (nint)segments };
            _ = Ioctl.Check(_grants, GrantIoctl.CopyNumber, &argument, "IOCTL_GNTDEV_GRANT_COPY");
        }
    }

    /// <inheritdoc/>
    public IEventChannel BindEventChannel(ushort domid, uint remotePort) => // off the path: the start
        new DeviceEventChannel(
            FileDescriptor.Open(EventDevice, OpenFlags.O_RDWR | OpenFlags.O_NONBLOCK), domid, remotePort);

    /// <inheritdoc/>
    public void Dispose() => _grants.Dispose();
}
