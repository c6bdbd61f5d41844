using System.Runtime.InteropServices;

namespace Ublkback.Xen;

/// <summary>Numbers and structures of the event channel device (xen/evtchn.h).</summary>
public static class EventIoctl
{
    /// <summary>IOCTL_EVTCHN_BIND_INTERDOMAIN; returns the local port.</summary>
    public const uint BindInterdomainNumber = 0x084501;

    /// <summary>IOCTL_EVTCHN_UNBIND.</summary>
    public const uint UnbindNumber = 0x044503;

    /// <summary>IOCTL_EVTCHN_NOTIFY.</summary>
    public const uint NotifyNumber = 0x044504;

    /// <summary>struct ioctl_evtchn_bind_interdomain.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct BindInterdomain
    {
        /// <summary>The other domain.</summary>
        public uint RemoteDomid;

        /// <summary>Its port.</summary>
        public uint RemotePort;
    }
}
