using Ublkback.Linux.Kernel;

namespace Ublkback.Xen;

/// <summary>A port bound through the event channel device, one descriptor each.</summary>
[DataPath]
internal sealed unsafe class DeviceEventChannel : IEventChannel
{
    private readonly uint _localPort;

    public DeviceEventChannel(FileDescriptor device, ushort domid, uint remotePort)
    {
        Descriptor = device;
        EventIoctl.BindInterdomain bind = new() { RemoteDomid = domid, RemotePort = remotePort };
        int result = Ioctl.Call(device, EventIoctl.BindInterdomainNumber, &bind);
        if (result < 0)
        {
            device.Dispose();
            throw new LinuxException(-result, $"binding to port {remotePort} of domain {domid}");
        }

        _localPort = (uint)result;
    }

    public FileDescriptor Descriptor { get; }

    public int ReadLength => sizeof(uint);

    public bool MustUnmask => true;

    public void Notify()
    {
        uint port = _localPort;
        _ = Ioctl.Check(Descriptor, EventIoctl.NotifyNumber, &port, "IOCTL_EVTCHN_NOTIFY");
    }

    public void Dispose()
    {
        if (Descriptor.IsClosed) return;
        uint port = _localPort;
        _ = Ioctl.Call(Descriptor, EventIoctl.UnbindNumber, &port); // closing does it as well
        Descriptor.Dispose();
    }
}
